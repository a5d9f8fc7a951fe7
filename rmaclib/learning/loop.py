"""The loop that all stages of training share: optimizer, learning rate, log, best checkpoint, resuming.

Every random choice follows from the seed and the number of the update, so that a run that was killed goes on from its
last state and ends with the same weights as one that was not. What is in its folder: rmaclib.learning.folder.
"""

import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Protocol

import torch
from torch import Tensor, nn
from tqdm import tqdm

from rmaclib.checkpoints import load_network, save_network
from rmaclib.extraction.folder import as_text
from rmaclib.foundation.errors import NotFiniteError
from rmaclib.foundation.files import as_line, write_text
from rmaclib.foundation.settings import Field, settings
from rmaclib.learning.distributed import agree, is_main, sum_gradients, wait
from rmaclib.learning.errors import diverged
from rmaclib.learning.folder import (
    BAD,
    BEST,
    LOG,
    STATE,
    Log,
    check_best,
    expect_same,
    need_room,
    read_log,
    read_state,
    restore,
    save_state,
    training_folder,
)
from rmaclib.network import RMAC

OPTIMIZERS, SCHEDULES, PRECISIONS = ("sgd", "adamw"), ("constant", "step", "cosine"), ("float32", "bfloat16")
_DROP = 0.1  # of the step schedule: 1e-3, then 1e-4, as in the paper
_GROWN = 1e3  # times the norm of all weights before an update: no step that learns anything is as long

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]


@settings
class LoopSettings:
    """What all stages have in common. Defaults are the paper's, where they are known (Section 4.2).

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

    optimizer: Literal[OPTIMIZERS] = "sgd"
    lr: Annotated[float, Field(ge=0)] | None = None
    momentum: Share = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 5e-5
    schedule: Literal[SCHEDULES] = "step"
    drop_at: Share = 0.5
    warmup: Annotated[int, Field(ge=0)] = 0
    updates: Annotated[int, Field(ge=1, le=10**9)] = 4096
    clip: Annotated[float, Field(ge=1e-9)] | None = None
    precision: Literal[PRECISIONS] = "float32"
    pixels: Count | None = None
    device: str = "auto"
    evaluate_every: Count = 64
    save_every: Count = 64
    timeout: Annotated[int, Field(ge=1, le=10**6)] = 1800
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0

    def __post_init__(self):
        if self.lr is None:
            object.__setattr__(self, "lr", 1e-3 if self.optimizer == "sgd" else 1e-5)


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
    identity: what the run depends on (folder.identity_of); a folder of another identity is refused
    evaluate: validation score, larger is better; None: the last network is kept
    bad: name -> why an image can't be read, filled by step and evaluate
    watch: called in the main process after each update, with Trained.history so far
    raises LearningError: another run's folder, a damaged file in it, training that diverges; OutputError: a folder
      that can't be written to
    """
    with training_folder(out) as folder:
        wait()  # until the main process has the folder
        state = read_state(folder)
        if is_main():
            expect_same(folder, identity, state)
        need_room(folder, model, settings.optimizer)
        agree(model)
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter)
        optimizer = _optimizer(parameters, settings)
        done, best = 0, {"update": 0, "score": None}
        if state is not None:
            restore(folder / STATE, state, model, optimizer, step)
            done, best = state.update, state.best
            bad.update(state.bad)
            if is_main():
                check_best(folder, state, network)
        columns = ("update", *step.columns, "lr", "gradient_norm", "validation", "seconds")
        with Log(folder / LOG, columns, state.lines if state else ()) as log:
            if done < settings.updates:
                saves = _Saves(folder, model, network, optimizer, step, identity, best, bad, log, watch)
                _loop(saves, parameters, settings, evaluate, done, progress)
        if is_main():
            write_text(folder / BAD, "".join(f"{as_line(name)}\t{as_text(' '.join(why.split()))}\n"
                                             for name, why in sorted(bad.items())))
        wait()  # for the files
        return Trained(load_network(folder / BEST), best["update"], best["score"], read_log(folder / LOG), dict(bad))


def _loop(saves: "_Saves", parameters: list[nn.Parameter], settings: LoopSettings,
          evaluate: Callable[[], float] | None, done: int, progress: bool) -> None:
    """The updates after `done`, and before the first of them a validation."""
    step, optimizer = saves.step, saves.optimizer
    shown = None if progress and is_main() else True  # None: not where the output is no terminal
    with (repeatable(), tqdm(total=settings.updates, initial=done, desc="train", unit="update", disable=shown) as bar,
          _ticking(bar)):
        if done == 0 and evaluate:
            started = time.monotonic()
            bar.set_postfix_str("validation")
            with _finite(0, settings):
                score = saves.validated(0, evaluate())
            saves.logged({"update": 0, "validation": score, "seconds": time.monotonic() - started})
        for update in range(done + 1, settings.updates + 1):
            started = time.monotonic()
            bar.set_postfix_str(_told(saves, f"update {update}"))
            optimizer.zero_grad(set_to_none=False)
            with _finite(update, settings):
                row = step(update)
            sum_gradients(parameters)
            if not math.isfinite(row["loss"]):
                raise diverged(update, f"the loss is {row['loss']}", settings.lr)
            rate, norm = _stepped(update, parameters, optimizer, settings)
            last, score = update == settings.updates, None
            if last or (evaluate and update % settings.evaluate_every == 0):
                bar.set_postfix_str(_told(saves, "validation"))
                with _finite(update, settings):
                    score = saves.validated(update, evaluate() if evaluate else None)
            saves.log.write({"update": update, **row, "lr": rate, "gradient_norm": norm, "validation": score,
                             "seconds": time.monotonic() - started})
            if last or update % settings.save_every == 0:
                saves.save(update)
            saves.watched()
            bar.update()


def _stepped(update: int, parameters: list[nn.Parameter], optimizer: torch.optim.Optimizer,
             settings: LoopSettings) -> tuple[float, float]:
    """Takes the step; returns the learning rate and the norm of the gradient. raises LearningError: diverged"""
    norm = float(torch.nn.utils.clip_grad_norm_(parameters, settings.clip or math.inf))
    if not math.isfinite(norm):
        raise diverged(update, f"the norm of the gradient is {norm}", settings.lr)
    before = _norm(parameters)
    rate = optimizer.param_groups[0]["lr"] = learning_rate(settings, update)
    optimizer.step()
    after = _norm(parameters)
    if not after <= _GROWN * max(before, 1.0):  # also when it is NaN
        raise diverged(update, f"the norm of all weights went from {before:.3g} to {after:.3g}", settings.lr)
    return rate, norm


@torch.no_grad()
def _norm(parameters: list[nn.Parameter]) -> float:
    return float(torch.nn.utils.get_total_norm(parameters))


@contextmanager
def _finite(update: int, settings: LoopSettings) -> Iterator[None]:
    try:
        yield
    except NotFiniteError as error:
        raise diverged(update, str(error), settings.lr) from error


@dataclass
class _Saves:
    """What an update leaves behind: the log, the best network, the state."""

    folder: Path
    model: nn.Module
    network: RMAC
    optimizer: torch.optim.Optimizer
    step: Step
    identity: Mapping
    best: dict
    bad: dict[str, str]
    log: Log
    watch: Callable[[list[dict]], object] | None

    def validated(self, update: int, score: float | None) -> float | None:
        """The score of the network as it is, which is saved when it is the best so far."""
        if score is None or self.best["score"] is None or score > self.best["score"]:
            self.best.update(update=update, score=score)
            if is_main():
                save_network(self.folder / BEST, self.network)
        return score

    def save(self, update: int) -> None:
        if is_main():
            save_state(self.folder / STATE, self.model, self.optimizer, self.step.state(), {
                "update": update, "best": self.best, "bad": self.bad, "lines": self.log.lines, "run": self.identity})

    def logged(self, row: Mapping[str, float | None]) -> None:
        self.log.write(row)
        self.watched()

    def watched(self) -> None:
        if self.watch and is_main():
            self.watch(self.log.rows)


def _told(saves: _Saves, what: str) -> str:
    row, best = saves.log.rows[-1] if saves.log.rows else {}, saves.best["score"]
    loss = row.get("loss")
    return ", ".join([what, *([f"loss {loss:.4f}"] if loss is not None else []),
                      *([f"best {best:.4f}"] if best is not None else [])])


@contextmanager
def _ticking(bar: tqdm) -> Iterator[None]:
    """The bar's clock goes on while a long update is computed: people see that the program lives."""
    if bar.disable:
        yield
        return
    ended = threading.Event()

    def tick() -> None:
        while not ended.wait(1):
            bar.refresh()

    thread = threading.Thread(target=tick, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def repeatable() -> Iterator[None]:
    """A GPU computes the same from the same, where it can; on a CPU nothing changes.

    Where it can't, which is the pooling of proposals, PyTorch warns. cuBLAS needs a variable of the environment for it,
    which is set before a process starts its work: environment.prepare_process.
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


def _optimizer(parameters: list[nn.Parameter], settings: LoopSettings) -> torch.optim.Optimizer:
    if settings.optimizer == "sgd":
        return torch.optim.SGD(parameters, settings.lr, settings.momentum, weight_decay=settings.weight_decay)
    return torch.optim.AdamW(parameters, settings.lr, weight_decay=settings.weight_decay)
