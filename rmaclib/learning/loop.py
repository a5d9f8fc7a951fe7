"""The loop that both stages of training share: optimizer, learning rate, log, best checkpoint, resuming.

All that a run knows is in OUT/state.safetensors, which is replaced as a whole. Every random choice follows from the
seed and the number of the update, so that a run that was killed goes on from its last state and ends with the
same weights as one that was not.
"""

import csv
import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from scipy.sparse import csr_array
from torch import Tensor, nn
from tqdm import tqdm

from rmaclib.checkpoints import fingerprint, load_checkpoint, save_checkpoint
from rmaclib.datasets.types import LabelledImages
from rmaclib.files import files_fingerprint, whole_file, write_json, write_text
from rmaclib.learning.distributed import agree, is_main, sum_gradients, wait
from rmaclib.learning.errors import LearningError
from rmaclib.rmac import RMAC
from rmaclib.settings import in_range, one_of, whole_number

OPTIMIZERS, SCHEDULES, PRECISIONS = ("sgd", "adamw"), ("constant", "step", "cosine"), ("float32", "bfloat16")
# Without it cuBLAS may sum in another order next time. It is read when the GPU is first used.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
_DROP = 0.1  # of the step schedule: 1e-3, then 1e-4, as in the paper
BEST, LOG, STATE, RUN, BAD = "best.safetensors", "log.csv", "state.safetensors", "run.json", "bad.txt"


@dataclass(frozen=True)
class LoopSettings:
    """What both stages have in common. Defaults are the paper's, where they are known (Section 4.2).

    optimizer: "sgd" or "adamw"; lr: learning rate, None takes 1e-3 (the paper's) for SGD and 1e-5 for AdamW
    momentum: of SGD; weight_decay: added to the gradient (SGD), or taken off the weights (AdamW)
    schedule: "step" goes on with a tenth of lr after the share drop_at of the updates, "cosine" falls to zero,
      "constant" stays; warmup: updates over which lr rises linearly to its value
    updates: steps of the optimizer; the paper's number is not known
    clip: largest norm of the gradient, longer ones are shortened to it; None: none
    precision: "float32", or "bfloat16": the backbone computes in it (autocast)
    pixels: of the images that go through the network together; None: a default for the device
    device: "auto" (CUDA, else Apple's MPS, else CPU) or a torch device name
    evaluate_every: updates between two validations; save_every: updates between two saved states
    timeout: seconds after which, of several processes, one that waits for another ends with an error
    """

    optimizer: str = "sgd"
    lr: float | None = None
    momentum: float = 0.9
    weight_decay: float = 5e-5
    schedule: str = "step"
    drop_at: float = 0.5
    warmup: int = 0
    updates: int = 4096
    clip: float | None = None
    precision: str = "float32"
    pixels: int | None = None
    device: str = "auto"
    evaluate_every: int = 64
    save_every: int = 64
    timeout: int = 1800
    seed: int = 0

    def __post_init__(self):
        one_of("optimizer", self.optimizer, OPTIMIZERS)
        one_of("schedule", self.schedule, SCHEDULES)
        one_of("precision", self.precision, PRECISIONS)
        if self.lr is None:
            object.__setattr__(self, "lr", 1e-3 if self.optimizer == "sgd" else 1e-5)
        in_range("lr", self.lr, 0)
        in_range("momentum", self.momentum, 0, 1)
        in_range("weight_decay", self.weight_decay, 0)
        in_range("drop_at", self.drop_at, 0, 1)
        whole_number("warmup", self.warmup, 0)
        whole_number("seed", self.seed, 0)
        for name in ("updates", "evaluate_every", "save_every", "timeout"):
            whole_number(name, getattr(self, name), 1)
        if self.clip is not None:
            in_range("clip", self.clip, 1e-9)
        if self.pixels is not None:
            whole_number("pixels", self.pixels, 1)


def learning_rate(settings: LoopSettings, update: int) -> float:
    """Learning rate of an update, counted from 1."""
    rate = settings.lr
    if settings.schedule == "step" and update > settings.drop_at * settings.updates:
        rate *= _DROP
    if settings.schedule == "cosine":
        rate *= (1 + math.cos(math.pi * (update - 1) / settings.updates)) / 2
    return rate * min(1, update / settings.warmup) if settings.warmup else rate


@dataclass(frozen=True)
class Trained:
    """A trained network.

    network: the best one, on the CPU, in evaluation mode; best_update: after how many updates (0: untrained)
    score: its validation score, 0..1, None without validation, where the last network is taken
    history: rows of log.csv, numbers or None, one for each update and one (0) for the start
    bad: name -> why an image can't be read
    """

    network: RMAC
    best_update: int
    score: float | None
    history: list[dict[str, float | None]]
    bad: Mapping[str, str]


class Step(Protocol):
    """What a stage does in an update."""

    columns: tuple[str, ...]  # names of what it reports

    def __call__(self, update: int) -> dict[str, float]:
        """Add the gradient of update 1, 2, … to the parameters; returns "loss" and other things to log."""

    def state(self) -> dict[str, Tensor]:
        """What it must know to go on after this update."""

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a state."""


def run(model: nn.Module, network: RMAC, step: Step, settings: LoopSettings, *, out: str | os.PathLike,
        identity: Mapping, evaluate: Callable[[], float] | None, bad: dict[str, str], progress: bool,
        watch: Callable[[list[dict]], object] | None = None) -> Trained:
    """Train `model` to the end, or go on with what is in `out`; a finished run is only loaded.

    network: what is saved; it shares its weights with the model
    identity: what the run depends on; a folder of another identity is refused
    evaluate: validation score, larger is better; None: the last network is kept
    bad: name -> why an image can't be read, filled by step and evaluate
    watch: called in the main process after each update, with Trained.history so far
    raises LearningError: another run's folder, a loss that is not finite
    """
    out = Path(out)
    if is_main():
        _expect_same(out / RUN, json.loads(json.dumps(identity)))
    agree(model)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    optimizer = _optimizer(parameters, settings)
    done, best = 0, {"update": 0, "score": None}
    if (out / STATE).exists():
        done, best = _load_state(out / STATE, model, optimizer, step, bad)
    columns = ("update", *step.columns, "lr", "gradient_norm", "validation", "seconds")

    def validated(update: int) -> float | None:
        """Score of the network as it is, which is saved when it is the best so far."""
        score = evaluate() if evaluate else None
        if score is None or best["score"] is None or score > best["score"]:
            best.update(update=update, score=score)
            if is_main():
                save_checkpoint(out / BEST, network)
        return score

    if done < settings.updates:
        with (_Log(out / LOG, columns, done) as log, repeatable(),
              tqdm(total=settings.updates, initial=done, desc="train", unit="update",
                   disable=None if progress and is_main() else True) as bar):
            if done == 0 and evaluate:
                started = time.monotonic()
                score = validated(0)
                log.write({"update": 0, "validation": score, "seconds": time.monotonic() - started})
                if watch and is_main():
                    watch(log.rows)
            for update in range(done + 1, settings.updates + 1):
                started = time.monotonic()
                optimizer.zero_grad(set_to_none=False)
                row = step(update)
                sum_gradients(parameters)
                if not math.isfinite(row["loss"]):
                    raise LearningError(f"update {update}: the loss is {row['loss']}; try a smaller lr "
                                        f"(now {settings.lr:g}), a longer warmup, or clip")
                norm = torch.nn.utils.clip_grad_norm_(parameters, settings.clip or math.inf)
                rate = optimizer.param_groups[0]["lr"] = learning_rate(settings, update)
                optimizer.step()
                last = update == settings.updates
                score = validated(update) if last or (evaluate and update % settings.evaluate_every == 0) else None
                log.write({"update": update, **row, "lr": rate, "gradient_norm": float(norm), "validation": score,
                           "seconds": time.monotonic() - started})
                if is_main() and (last or update % settings.save_every == 0):
                    _save_state(out / STATE, model, optimizer, step, {"update": update, "best": best, "bad": bad})
                if watch and is_main():
                    watch(log.rows)
                bar.update()
                bar.set_postfix(loss=f"{row['loss']:.4f}", best=best["score"])
    if is_main():
        write_text(out / BAD, "".join(f"{name}\t{' '.join(why.split())}\n" for name, why in sorted(bad.items())))
    wait()  # for the files
    return Trained(load_checkpoint(out / BEST), best["update"], best["score"], read_log(out / LOG), dict(bad))


@contextmanager
def repeatable() -> Iterator[None]:
    """A GPU computes the same from the same, where it can; on a CPU nothing changes that is not so already.

    Where it can't, which is the pooling of proposals, PyTorch warns.
    """
    if not torch.cuda.is_available():
        yield
        return
    strict = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    filled, chosen = torch.utils.deterministic.fill_uninitialized_memory, torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # finds errors of PyTorch's, for time
    torch.backends.cudnn.benchmark = False  # the fastest algorithm is not always the same
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(strict, warn_only=warn_only)
        torch.utils.deterministic.fill_uninitialized_memory = filled
        torch.backends.cudnn.benchmark = chosen


def read_log(path: str | os.PathLike) -> list[dict[str, float | None]]:
    """Rows of a log.csv; empty fields are None."""
    with Path(path).open(newline="", encoding="utf-8") as file:
        return [_parsed(row.items()) for row in csv.DictReader(file)]


def _parsed(fields: Iterable[tuple[str, str]]) -> dict[str, float | None]:
    return {name: float(value) if value else None for name, value in fields}


class _Log:
    """log.csv, one line after the other; lines after the update that the state knows are cut. Only the main
    process writes it, and has its rows."""

    def __init__(self, path: Path, columns: Sequence[str], done: int):
        self.columns, self.file, self.rows = columns, None, []
        if not is_main():
            return
        lines = [",".join(columns)]
        if done and path.exists():
            # Row 0 belongs to the start, rows 1 … done to the updates that the state holds.
            lines += [line for line in path.read_text(encoding="utf-8").split("\n")[1:-1]
                      if int(line.split(",", 1)[0]) <= done]
        write_text(path, "".join(f"{line}\n" for line in lines))
        self.rows = read_log(path)
        self.file = path.open("a", encoding="utf-8", newline="\n")

    def __enter__(self) -> "_Log":
        return self

    def __exit__(self, *error) -> None:
        if self.file:
            self.file.close()

    def write(self, row: Mapping[str, float | None]) -> None:
        if not self.file:
            return
        fields = ["" if row.get(name) is None else f"{row[name]:.7g}" for name in self.columns]
        self.file.write(",".join(fields) + "\n")
        self.file.flush()
        self.rows.append(_parsed(zip(self.columns, fields, strict=True)))


def _optimizer(parameters: list[nn.Parameter], settings: LoopSettings) -> torch.optim.Optimizer:
    if settings.optimizer == "sgd":
        return torch.optim.SGD(parameters, settings.lr, settings.momentum, weight_decay=settings.weight_decay)
    return torch.optim.AdamW(parameters, settings.lr, weight_decay=settings.weight_decay)


def _save_state(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, step: Step, notes: Mapping) -> None:
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    tensors |= {f"optimizer.{number}.{name}": tensor for number, values in optimizer.state_dict()["state"].items()
                for name, tensor in values.items()}
    tensors |= {f"step.{name}": tensor for name, tensor in step.state().items()}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with whole_file(path) as temporary:
        save_file(tensors, temporary, {"notes": json.dumps(notes)})


def _load_state(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, step: Step,
                bad: dict[str, str]) -> tuple[int, dict]:
    """Brings everything back to the saved update; returns its number, and that and the score of the best."""
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "optimizer": {}, "step": {}}
    with safe_open(path, framework="pt") as file:
        notes = json.loads(file.metadata()["notes"])
        for key in file.keys():
            part, name = key.split(".", 1)
            parts[part][name] = file.get_tensor(key)
    model.load_state_dict(parts["model"])
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in parts["optimizer"].items():
        number, name = key.split(".", 1)
        state.setdefault(int(number), {})[name] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    step.restore(parts["step"])
    bad.update(notes["bad"])
    return notes["update"], notes["best"]


def _expect_same(path: Path, identity: dict) -> None:
    """Writes what the run depends on, or compares with what a run before has written."""
    if not path.exists():
        write_json(path, identity)
        return
    found = json.loads(path.read_text(encoding="utf-8"))
    different = []
    for part in identity:
        if isinstance(identity[part], dict) and isinstance(found.get(part), dict):
            # Settings are shown, fingerprints are not.
            shown = " ({!r}, now {!r})" if part in ("settings", "network") else ""
            different += [f"{part}.{key}" + shown.format(found[part].get(key), value)
                          for key, value in identity[part].items() if found[part].get(key) != value]
        elif found.get(part) != identity[part]:
            different.append(part)
    if different:
        raise LearningError(f"{path.parent}: holds a training run with other {', '.join(different)}; choose another "
                            "folder, or remove this one to train again")


def identity_of(stage: str, network: RMAC, settings: LoopSettings, images: LabelledImages,
                positives: csr_array | None = None, validation: LabelledImages | None = None,
                validation_positives: csr_array | None = None) -> dict:
    """What the result of a run depends on, as JSON."""
    chosen = {name: value for name, value in asdict(settings).items() if name not in ("save_every", "timeout")}
    return {"stage": stage, "settings": chosen, "network": asdict(network.settings), "weights": fingerprint(network),
            "images": _images_identity(images, positives),
            "validation": None if validation is None else _images_identity(validation, validation_positives)}


def _images_identity(images: LabelledImages, positives: csr_array | None) -> dict:
    return {"files": files_fingerprint(images.names, images.paths), "labels": _digest(images.labels),
            "boxes": _digest(repr(images.boxes).encode()),
            "positives": None if positives is None else _digest(np.stack(positives.nonzero()))}


def _digest(values) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()
