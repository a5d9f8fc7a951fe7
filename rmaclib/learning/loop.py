"""The loop that all stages of training share: updates, log, best network, resuming.

Every random choice follows from the seed and the number of the update, so that a run that was killed goes on from its
last state and ends with the same weights as one that was not. Its files: ``rmaclib.learning.folder``.
"""

import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn
from tqdm import tqdm

from rmaclib.checkpoints import load_network, save_network
from rmaclib.foundation.errors import InputError, NotFiniteError
from rmaclib.foundation.messages import tell
from rmaclib.learning.distributed import agree, agreed, is_main, sum_gradients, wait
from rmaclib.learning.errors import diverged
from rmaclib.learning.folder import BAD, BEST, LOG, STATE, expect_same, need_room, training_folder, write_bad
from rmaclib.learning.frozen import early_parameters, frozen_layers
from rmaclib.learning.log import Log, Row, read_log
from rmaclib.learning.optimization import LoopSettings, create_optimizer, take_step
from rmaclib.learning.repeatable import repeatable
from rmaclib.learning.state import Best, State, check_best, read_state, restore, save_state
from rmaclib.network import RMAC

Watch = Callable[[list[Row]], object]


@dataclass(frozen=True)
class Trained:
    """A trained network.

    Attributes:
        network: The best one, on the CPU, in evaluation mode.
        best_update: After how many updates; 0 is the untrained one.
        score: Its validation score, 0..1. None without validation, where the last network is taken.
        history: Rows of log.csv, numbers or None: one for each update, and with validation one (0) for the start. It
            ends where ``LoopSettings.patience`` did.
        bad: Name of an image -> why it can't be read.
    """

    network: RMAC
    best_update: int
    score: float | None
    history: list[Row]
    bad: Mapping[str, str]


class Step(Protocol):
    """What a stage does in an update."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of what it reports."""

    def __call__(self, update: int, /) -> Mapping[str, float]:
        """Add the gradient of an update to the parameters.

        Args:
            update: Counted from 1.

        Returns:
            The ``loss`` and the other columns of the log.
        """

    def state(self) -> dict[str, Tensor]:
        """Collect what it must know to go on after this update."""

    def restore(self, state: Mapping[str, Tensor], /) -> None:
        """Go on from a state.

        Args:
            state: Of ``state()``.
        """


@dataclass(frozen=True)
class Stage:
    """A stage of training, as the loop runs it.

    Attributes:
        model: Its parameters are learned, those of ``settings.frozen`` excepted.
        network: What is saved; it shares its weights with the model.
        step: What an update does.
        settings: How it learns.
        identity: What the run depends on (``folder.identity_of``).
        evaluate: Measures the network; a larger score is better. None: the last network is kept.
        bad: Name of an image -> why it can't be read; filled by step and evaluate.
    """

    model: nn.Module
    network: RMAC
    step: Step
    settings: LoopSettings
    identity: Mapping
    evaluate: Callable[[], float] | None
    bad: dict[str, str]

    def __post_init__(self) -> None:
        if self.settings.patience is not None and self.evaluate is None:
            raise InputError("patience: expected with validation images, whose score has to improve; got "
                             f"{self.settings.patience} without them")
        if self.settings.frozen is not None:
            early_parameters(self.network.backbone, self.settings.frozen)  # or an error, before anything is computed


def run(stage: Stage, *, out: str | os.PathLike, progress: bool = True, watch: Watch | None = None) -> Trained:
    """Train to the end, or go on with what is in the folder; a finished run is only loaded.

    Args:
        stage: What is trained.
        out: The folder of the run; one of another run, by its identity, is rejected.
        progress: Show a bar on a terminal.
        watch: Called in the main process after each update, with ``Trained.history`` so far.

    Returns:
        The best network, and how training went.

    Raises:
        InputError: All layers are frozen.
        LearningError: Another run's folder, a damaged file in it, training that diverges.
        OutputError: A folder that can't be written to.
    """
    model, settings = stage.model, stage.settings
    with training_folder(out) as folder, frozen_layers(stage.network.backbone, settings.frozen):
        wait()  # until the main process has the folder
        state = read_state(folder)
        if is_main():
            expect_same(folder, stage.identity, state.run if state else None, resumed=state is not None)
        need_room(folder, model, settings.optimizer)
        agree(model)
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        if not parameters:
            raise InputError(f"frozen: expected a layer with others behind it that learn, got {settings.frozen!r}")
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter)
        optimizer = create_optimizer(parameters, settings)
        if state is not None:
            _resume(stage, state, optimizer, folder)
        columns = ("update", *stage.step.columns, "lr", "gradient_norm", "validation", "seconds")
        best = state.best if state else Best()
        with Log(folder / LOG, columns, state.lines if state else ()) as log:
            updates = _Updates(stage, optimizer, parameters, folder, log, best)
            if not settings.ends(done := state.update if state else 0, best.update):
                updates.run(done, progress, watch if is_main() else None)
        if is_main():
            write_bad(folder / BAD, stage.bad)
        wait()  # for the files
        return Trained(load_network(folder / BEST), best.update, best.score, read_log(folder / LOG), dict(stage.bad))


def _resume(stage: Stage, state: State, optimizer: torch.optim.Optimizer, folder: Path) -> None:
    """Put stage and optimizer back to a state."""
    restore(folder / STATE, state, stage.model, optimizer, stage.step.restore)
    stage.bad.update(state.bad)
    if is_main():
        check_best(folder, state, stage.network)


@dataclass
class _Updates:
    """The updates of a run, and what each leaves behind: a row of the log, the best network, the state."""

    stage: Stage
    optimizer: torch.optim.Optimizer
    parameters: list[nn.Parameter]
    folder: Path
    log: Log
    best: Best

    def run(self, done: int, progress: bool, watch: Watch | None) -> None:
        """The updates after `done`, and before the first of them a validation."""
        settings, update = self.stage.settings, done
        hidden = None if progress and is_main() else True  # None: hidden where the output is no terminal
        with (repeatable(),
              tqdm(total=settings.updates, initial=done, desc="train", unit="update", disable=hidden) as bar,
              _ticking(bar)):
            if done == 0 and self.stage.evaluate:
                self._validate_first(bar)
                if watch:
                    watch(self.log.rows)
            while not settings.ends(update, self.best.update):
                update += 1
                self._update(update, bar)
                if settings.ends(update, self.best.update) or update % settings.save_every == 0:
                    self._save(update)
                if watch:
                    watch(self.log.rows)
                bar.update()
        if update < settings.updates and is_main():
            tell(settings.why_stopped(update))

    def _validate_first(self, bar: tqdm) -> None:
        started = time.monotonic()
        bar.set_postfix_str("validation")
        score = self._validated(0)
        self.log.write({"update": 0, "validation": score, "seconds": time.monotonic() - started})

    def _update(self, update: int, bar: tqdm) -> None:
        """Gradient, step of the optimizer, validation when it is time, and a row of the log."""
        stage, settings = self.stage, self.stage.settings
        started = time.monotonic()
        bar.set_postfix_str(self._status(f"update {update}"))
        self.optimizer.zero_grad(set_to_none=False)
        with _finite(update, settings):
            row = stage.step(update)
        sum_gradients(self.parameters)
        if not math.isfinite(row["loss"]):
            raise diverged(update, f"the loss is {row['loss']}", settings.full_lr)
        lr, norm = take_step(update, self.parameters, self.optimizer, settings)
        score = None
        if update == settings.updates or (stage.evaluate and update % settings.evaluate_every == 0):
            bar.set_postfix_str(self._status("validation"))
            score = self._validated(update)
        self.log.write({"update": update, **row, "lr": lr, "gradient_norm": norm, "validation": score,
                        "seconds": time.monotonic() - started})

    def _validated(self, update: int) -> float | None:
        """The score of the network as it is, which is saved when it is the best so far."""
        with _finite(update, self.stage.settings):
            score = agreed(self.stage.evaluate()) if self.stage.evaluate else None
        if score is None or self.best.score is None or score > self.best.score:
            self.best.update, self.best.score = update, score
            if is_main():
                save_network(self.folder / BEST, self.stage.network)
        return score

    def _save(self, update: int) -> None:
        if is_main():
            stage = self.stage
            save_state(self.folder / STATE, stage.model, self.optimizer, stage.step.state(), {
                "update": update, "best": asdict(self.best), "bad": stage.bad, "lines": self.log.lines,
                "run": stage.identity})

    def _status(self, what: str) -> str:
        """What is being done, and how training goes, for the progress bar."""
        loss = self.log.rows[-1].get("loss") if self.log.rows else None
        best = self.best.score
        return ", ".join([what, *([f"loss {loss:.4f}"] if loss is not None else []),
                          *([f"best {best:.4f}"] if best is not None else [])])


@contextmanager
def _finite(update: int, settings: LoopSettings) -> Iterator[None]:
    """Descriptors that are not finite are an error of a training that has diverged."""
    try:
        yield
    except NotFiniteError as error:
        raise diverged(update, str(error), settings.full_lr) from error


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


