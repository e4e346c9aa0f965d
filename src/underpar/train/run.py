"""A training that can be stopped and resumed: ``loop`` with checkpoints and signals around it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from underpar import dist, progress
from underpar.bits import Score
from underpar.data.loader import Loader
from underpar.model.gpt import GPT
from underpar.recipe.schema import TrainSpec
from underpar.train import compute
from underpar.train.counters import Counters
from underpar.train.interrupt import Wish, interruptible
from underpar.train.log import position, show_step
from underpar.train.loop import Loop, prepare
from underpar.train.state import identity_of, load_weights, read, restore, save
from underpar.train.warmup import WeightHooks


@dataclass(frozen=True)
class TrainResult:
    """How a training went. stop_reason: 'seconds', 'iterations' or 'interrupted'.

    tokens, seconds: of training proper, over all parts of a resumed run. compile_seconds: probing,
    compiling and warmup of the last part. losses: nats a token, one a step, mean over ranks.
    """

    steps: int
    tokens: int
    seconds: float
    compile_seconds: float
    stop_reason: str
    losses: list[float]
    dtype: str
    compiled: bool


@dataclass(frozen=True)
class StepInfo:
    """What ``on_step`` is told: steps done, loss and multiplier of the last, training seconds."""

    step: int
    loss: float
    multiplier: float
    elapsed: float


def train(
    model: GPT,
    spec: TrainSpec,
    loader_factory: Callable[[], Loader],
    *,
    seed: int,
    qat: Callable[[GPT], None] | None = None,
    validate: Callable[[GPT], Score] | None = None,
    checkpoint: Path | None = None,
    resume: bool = False,
    on_step: Callable[[StepInfo], None] | None = None,
) -> TrainResult:
    """Train ``model`` in place; on return it holds the final (averaged, pruned) weights.

    Collective: every rank calls it with the same model. loader_factory: a loader at its beginning,
    called once for warmup and once for training. qat: installs weight hooks on the model, see
    ``spec.qat_below``. validate: scores the model as it is, outside the clock. checkpoint: folder
    for checkpoints; with ``resume`` the newest one there is continued (a finished one: its weights
    and its result are given back); where there is none, training starts. seed: the one the model
    was made with; a checkpoint of another is refused.

    SIGINT or SIGTERM ends the step, writes a checkpoint and returns 'interrupted', the model then
    holding raw weights. Raises TrainingError on a non-finite loss or weight (the last good
    checkpoint stays) and on a checkpoint that is damaged or of another run; RecipeError when
    batch_tokens does not divide over the ranks; MachineError when compile is 'on' and impossible.
    """
    identity = identity_of(model, spec, seed)
    saved = read(checkpoint, identity) if checkpoint and resume else None
    if saved and saved[1]["counters"]["stop_reason"]:
        load_weights(model, saved[0])
        counters = Counters(**saved[1]["counters"])
        model.looping = counters.looping
        model.eval()
        progress.current().line(f"training was finished at step {counters.step}")
        return _result(spec, counters, 0.0, counters.stop_reason)
    began = time.perf_counter()
    model.train()
    with compute.numerics(spec, next(model.parameters()).device):
        hooks = WeightHooks(model, qat) if spec.qat_below and qat else None
        recorded = None
        if saved:
            recorded = (saved[1]["counters"]["dtype"], saved[1]["counters"]["compiled"])
        with progress.busy("compiling and warming up"):
            state, stepper = prepare(model, spec, loader_factory, hooks, recorded)
        if saved:
            restore(state, saved)
            progress.current().line(f"resumed at step {state.counters.step}")
        model.looping = state.counters.looping
        if state.counters.qat and hooks:
            hooks.on()
        compile_seconds = time.perf_counter() - began
        loop = _Resumable(spec, state, stepper, hooks, validate)
        loop.identity, loop.folder, loop.on_step = identity, checkpoint, on_step
        try:
            with interruptible() as loop.wish:
                reason = loop.steps()
        finally:
            if hooks:
                hooks.off()
        if reason == "interrupted":
            where = f"; resume from {checkpoint}" if checkpoint else " without checkpoint"
            progress.current().line(f"interrupted {position(spec, state.counters)}{where}")
        else:
            loop.settle()
            state.counters.stop_reason = reason
            loop.save()
            loop.close()
    return _result(spec, state.counters, compile_seconds, reason)


def _result(
    spec: TrainSpec, counters: Counters, compile_seconds: float, reason: str
) -> TrainResult:
    return TrainResult(
        steps=counters.step,
        tokens=counters.step * spec.batch_tokens,
        seconds=counters.elapsed,
        compile_seconds=compile_seconds,
        stop_reason=reason,
        losses=counters.losses,
        dtype=counters.dtype,
        compiled=counters.compiled,
    )


class _Resumable(Loop):
    """Writes a checkpoint every so many seconds, and when some rank was asked to stop."""

    identity: dict[str, Any]
    folder: Path | None
    on_step: Callable[[StepInfo], None] | None
    wish: Wish

    def __post_init__(self) -> None:
        super().__post_init__()
        self.saved_at = time.perf_counter()

    def signals(self) -> list[float]:
        """Whether this rank was asked to stop; on rank 0 the seconds since the last checkpoint."""
        since = time.perf_counter() - self.saved_at if dist.is_main() else 0.0
        return [float(self.wish.stop), since]

    def after_step(self, multiplier: float, signals: list[float]) -> bool:
        c, (wishes, since_saved) = self.state.counters, signals
        show_step(self.spec, c, multiplier)
        if self.on_step is not None:
            self.on_step(StepInfo(c.step, c.losses[-1], multiplier, c.elapsed))
        if wishes or 0 < self.spec.checkpoint_seconds <= since_saved:
            self.save()
        return wishes > 0

    def save(self) -> None:
        if self.folder is not None:
            save(self.state, self.folder, self.identity)
        self.saved_at = time.perf_counter()
