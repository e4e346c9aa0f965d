"""The training loop: steps until the budget is used, and what happens between them.

Order of a step, as published: multiplier and loop latch from the clock as read after the step
before; forward and backward; averaged gradients, clipped; optimizers; averaging of weights; QAT
latch; then logs, validation and checkpoints. The clock counts steps and nothing else: compiling and
warmup come before it, and it stands still during validation and while a checkpoint is written. All
ranks act on rank 0's clock, so rates and switches are the same everywhere to the last bit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from underpar import dist, progress
from underpar.bits import Score
from underpar.data.loader import Loader
from underpar.errors import TrainingError
from underpar.model.gpt import GPT
from underpar.recipe.schema import TrainSpec
from underpar.train import compute, schedule
from underpar.train.averaging import make_average
from underpar.train.interrupt import Wish, interruptible
from underpar.train.log import position, report_score, report_step
from underpar.train.optimizers import Optimizers
from underpar.train.prune import prune
from underpar.train.state import Counters, Saved, State, identity_of, load_weights, read
from underpar.train.step import Stepper, TrainingClock, agree, micro_steps, to_device
from underpar.train.warmup import WeightHooks, warm_up


@dataclass(frozen=True)
class StepInfo:
    """What ``on_step`` is told: steps done, loss and multiplier of the last, training seconds."""

    step: int
    loss: float
    multiplier: float
    elapsed: float


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
        return _result(spec, counters, 0.0)
    began = time.perf_counter()
    device = next(model.parameters()).device
    model.train()
    with compute.numerics(spec, device):
        hooks = WeightHooks(model, qat if spec.qat_below else None)
        state, stepper = _prepare(model, spec, loader_factory, hooks, saved)
        compile_seconds = time.perf_counter() - began
        run = _Run(spec, state, stepper, hooks, identity, checkpoint, validate, on_step)
        try:
            with interruptible() as wish:
                reason = run.steps(wish)
        finally:
            hooks.off()
        run.finish(reason)
    return _result(spec, state.counters, compile_seconds, reason)


def _result(
    spec: TrainSpec, counters: Counters, compile_seconds: float, reason: str = ""
) -> TrainResult:
    return TrainResult(
        steps=counters.step,
        tokens=counters.step * spec.batch_tokens,
        seconds=counters.elapsed,
        compile_seconds=compile_seconds,
        stop_reason=reason or counters.stop_reason,
        losses=counters.losses,
        dtype=counters.dtype,
        compiled=counters.compiled,
    )


def _prepare(
    model: GPT,
    spec: TrainSpec,
    loader_factory: Callable[[], Loader],
    hooks: WeightHooks,
    saved: Saved | None,
) -> tuple[State, Stepper]:
    """Choose dtype and compiler, warm up, and set the state to the start or the checkpoint."""
    device = next(model.parameters()).device
    recorded = None
    if saved:
        recorded = (saved[1]["counters"]["dtype"], saved[1]["counters"]["compiled"])
    loader = loader_factory()
    batch = to_device(loader.next_batch(), device)
    rounds = micro_steps(spec, dist.world_size())
    chosen = compute.choose(model, spec, batch, rounds, recorded)
    name = str(chosen.dtype).removeprefix("torch.")
    mode = "compiled" if chosen.compiled else "eager"
    progress.current().line(
        f"training in {name}, {mode}, on {device.type}: {dist.world_size()} process(es) x {rounds} "
        f"micro-step(s) x {spec.micro_tokens} tokens"
    )
    warm_up(model, spec, chosen, loader, hooks)
    optimizers = Optimizers(model, spec, dtype=chosen.dtype)
    counters = Counters(dtype=name, compiled=chosen.compiled)
    state = State(model, optimizers, make_average(spec, model), loader_factory(), counters)
    if saved:
        state.restore(saved)
        progress.current().line(f"resumed at step {state.counters.step}")
    model.looping = state.counters.looping
    if state.counters.qat:
        hooks.on()
    return state, Stepper(model, spec, chosen.loss, optimizers)


@dataclass
class _Run:
    """The timed part: the steps from where ``state`` stands to the end."""

    spec: TrainSpec
    state: State
    stepper: Stepper
    hooks: WeightHooks
    identity: dict[str, Any]
    checkpoint: Path | None
    validate: Callable[[GPT], Score] | None
    on_step: Callable[[StepInfo], None] | None
    budget: float = field(init=False)
    clock: TrainingClock = field(init=False)
    saved_at: float = field(init=False)

    def __post_init__(self) -> None:
        self.budget = schedule.budget_seconds(self.spec)
        self.clock = TrainingClock(self.state.counters.elapsed)
        self.saved_at = time.perf_counter()

    def steps(self, wish: Wish) -> str:
        """Step until the budget is used or someone wishes to stop; returns the reason."""
        spec, c = self.spec, self.state.counters
        if c.step == 0 and spec.val_every:
            self._validate()
        while True:
            if self.budget and c.elapsed >= self.budget:
                progress.current().line(f"stopping_early: wallclock_cap {position(spec, c)}")
                return "seconds"
            if c.step >= spec.iterations:
                return "iterations"
            if self._step(wish):
                return "interrupted"

    def finish(self, reason: str) -> None:
        """Turn the weights into the final ones and save them; an interrupted run is left as is."""
        spec, c = self.spec, self.state.counters
        if reason == "interrupted":
            where = f"; resume from {self.checkpoint}" if self.checkpoint else " without checkpoint"
            progress.current().line(f"interrupted {position(spec, c)}{where}")
            return
        state = self.state
        if state.average is not None:
            state.average.apply(state.model)
        prune(state.model, spec.prune)
        c.stop_reason = reason
        self._save()
        if spec.val_every:
            self._validate()
        state.model.eval()

    def _step(self, wish: Wish) -> bool:
        """One step and all that follows it. True when some rank was asked to stop."""
        spec, c = self.spec, self.state.counters
        self._latch_loops()
        multiplier = schedule.multiplier(spec, c.step, c.elapsed)
        momentum = schedule.muon_momentum(
            c.step,
            start=spec.muon_momentum_start,
            final=spec.muon_momentum,
            warmup=spec.muon_momentum_warmup,
        )
        share = self.stepper(self.state.loader, multiplier, momentum)
        c.step += 1
        if self.state.average is not None:
            self.state.average.update(self.state.model, c.step, multiplier)
        loss, wishes, since_saved = self._agree(share, wish)
        self._latch_qat(multiplier)
        report_step(spec, c, loss, multiplier)
        if self.on_step is not None:
            self.on_step(StepInfo(c.step, loss, multiplier, c.elapsed))
        with self.clock.paused():
            if wishes or 0 < spec.checkpoint_seconds <= since_saved:
                self._save()
            if spec.val_every and c.step % spec.val_every == 0 and not wishes:
                self._validate()
        return wishes

    def _agree(self, share: float, wish: Wish) -> tuple[float, bool, float]:
        """Mean loss, whether any rank wishes to stop, seconds since the last checkpoint.

        Sets the counters' clock and losses. Ranks other than 0 contribute zeros to the times.
        """
        c, main = self.state.counters, dist.is_main()
        elapsed = self.clock.elapsed if main else 0.0
        since = time.perf_counter() - self.saved_at if main else 0.0
        device = next(self.state.model.parameters()).device
        loss, wishes, c.elapsed, since = agree([share, float(wish.stop), elapsed, since], device)
        if not math.isfinite(loss):
            raise TrainingError(
                f"training loss at step {c.step}",
                got=loss,
                wanted="a finite number",
                do="The last checkpoint is still good. Lower the learning rates or clip gradients.",
            )
        c.losses.append(loss)
        return loss, wishes > 0, since

    def _latch_loops(self) -> None:
        c, model, spec = self.state.counters, self.state.model, self.spec
        done = schedule.fraction(c.step, c.elapsed, iterations=spec.iterations, seconds=self.budget)
        extra = model.spec.loop_extra
        if schedule.loops_on(c.looping, done, at=spec.loop_at, extra=extra) and not c.looping:
            c.looping = model.looping = True
            progress.current().line(f"layer_loop:enabled step:{c.step} frac:{done:.3f}")

    def _latch_qat(self, multiplier: float) -> None:
        c = self.state.counters
        if schedule.qat_on(c.qat, multiplier, below=self.spec.qat_below) and not c.qat:
            c.qat = True
            self.hooks.on()
            progress.current().line(f"late_qat:enabled step:{c.step} scale:{multiplier:.4f}")

    def _save(self) -> None:
        if self.checkpoint is not None:
            self.state.save(self.checkpoint, self.identity)
        self.saved_at = time.perf_counter()

    def _validate(self) -> None:
        if self.validate is None:
            return
        model = self.state.model
        model.eval()
        score = self.validate(model)
        model.train()
        report_score(self.spec, self.state.counters, score)
