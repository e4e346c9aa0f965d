"""The training loop: steps until the budget is used, and what happens between them.

``train_through`` runs it from start to end; ``run`` puts resuming, interruption and checkpoints
around it.

Order of a step, as published: multiplier and loop latch from the clock as read after the step
before; forward and backward; averaged gradients, clipped; optimizers; averaging of weights; QAT
latch; then logs, validation and checkpoints. The clock counts steps and nothing else: compiling and
warmup come before it, and it stands still during validation and while a checkpoint is written. All
ranks act on rank 0's clock, so rates and switches are the same everywhere to the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from underpar import dist, progress
from underpar.bits import Score
from underpar.data.loader import Loader
from underpar.errors import TrainingError
from underpar.model.gpt import GPT
from underpar.recipe.schema import TrainSpec
from underpar.train import compute, schedule
from underpar.train.averaging import Average, make_average
from underpar.train.counters import Counters
from underpar.train.log import log_step, position, report_score
from underpar.train.optimizers import Optimizers
from underpar.train.prune import prune
from underpar.train.step import Stepper, TrainingClock, agree, micro_steps, to_device
from underpar.train.warmup import WeightHooks, warm_up


@dataclass
class State:
    """All that moves during training: everything that a checkpoint holds."""

    model: GPT
    optimizers: Optimizers
    average: Average | None
    loader: Loader
    counters: Counters


def train_through(
    model: GPT,
    spec: TrainSpec,
    loader_factory: Callable[[], Loader],
    qat: Callable[[GPT], None] | None = None,
    validate: Callable[[GPT], Score] | None = None,
) -> Counters:
    """Train from start to end; arguments and errors as of ``run.train``. Collective."""
    model.train()
    with compute.numerics(spec, next(model.parameters()).device):
        hooks = WeightHooks(model, qat) if spec.qat_below and qat else None
        state, stepper = prepare(model, spec, loader_factory, hooks)
        loop = Loop(spec, state, stepper, hooks, validate)
        loop.steps()
        if spec.qat_below and hooks:
            hooks.off()
        loop.settle()
        loop.close()
    return state.counters


def prepare(
    model: GPT,
    spec: TrainSpec,
    loader_factory: Callable[[], Loader],
    hooks: WeightHooks | None,
    recorded: tuple[str, bool] | None = None,
) -> tuple[State, Stepper]:
    """Choose dtype and compiler (or repeat the ``recorded`` choice), warm up, start a state."""
    device = next(model.parameters()).device
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
    return state, Stepper(model, spec, chosen.loss, optimizers)


@dataclass
class Loop:
    """The timed part: the steps from where ``state`` stands to the end."""

    spec: TrainSpec
    state: State
    stepper: Stepper
    hooks: WeightHooks | None
    validate: Callable[[GPT], Score] | None = None
    budget: float = field(init=False)
    clock: TrainingClock = field(init=False)

    def __post_init__(self) -> None:
        self.budget = schedule.budget_seconds(self.spec)
        self.clock = TrainingClock(self.state.counters.elapsed)

    def steps(self) -> str:
        """Step until the budget is used or ``after_step`` wants to stop; returns the reason."""
        spec, c = self.spec, self.state.counters
        if c.step == 0 and spec.val_every:
            self._validate()
        while True:
            if self.budget and c.elapsed >= self.budget:
                progress.current().line(f"stopping_early: wallclock_cap {position(spec, c)}")
                return "seconds"
            if c.step >= spec.iterations:
                return "iterations"
            if self._step():
                return "interrupted"

    def signals(self) -> list[float]:
        """This rank's numbers, which are summed over the ranks together with the loss."""
        return []

    def after_step(self, multiplier: float, signals: list[float]) -> bool:
        """Called with the sums while the clock stands still. True: stop here."""
        return False

    def settle(self) -> None:
        """Turn the weights into the final ones: averaged, pruned."""
        if self.state.average is not None:
            self.state.average.apply(self.state.model)
        if self.spec.prune:
            prune(self.state.model, self.spec.prune)

    def close(self) -> None:
        """The last validation; the model is then ready to be scored."""
        if self.spec.val_every:
            self._validate()
        self.state.model.eval()

    def _step(self) -> bool:
        """One step and all that follows it. True when ``after_step`` wants to stop."""
        spec, c, state = self.spec, self.state.counters, self.state
        if state.model.spec.loop_extra:
            self._latch_loops()
        multiplier = schedule.multiplier(spec, c.step, c.elapsed)
        momentum = schedule.muon_momentum(
            c.step,
            start=spec.muon_momentum_start,
            final=spec.muon_momentum,
            warmup=spec.muon_momentum_warmup,
        )
        share = self.stepper(state.loader, multiplier, momentum)
        c.step += 1
        if state.average is not None:
            state.average.update(state.model, c.step, multiplier)
        signals = self._agree(share)
        if spec.qat_below:
            self._latch_qat(multiplier)
        log_step(spec, c, multiplier)
        with self.clock.paused():
            stop = self.after_step(multiplier, signals)
            if spec.val_every and c.step % spec.val_every == 0 and not stop:
                self._validate()
        return stop

    def _agree(self, share: float) -> list[float]:
        """The signals, summed over the ranks, as the loss is.

        Sets the counters' clock and losses; ranks other than 0 contribute no time.
        """
        c, elapsed = self.state.counters, self.clock.elapsed if dist.is_main() else 0.0
        device = next(self.state.model.parameters()).device
        loss, c.elapsed, *signals = agree([share, elapsed, *self.signals()], device)
        if not math.isfinite(loss):
            raise TrainingError(
                f"training loss at step {c.step}",
                got=loss,
                wanted="a finite number",
                do="The last checkpoint is still good. Lower the learning rates or clip gradients.",
            )
        c.losses.append(loss)
        return signals

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
            if self.hooks:
                self.hooks.on()
            progress.current().line(f"late_qat:enabled step:{c.step} scale:{multiplier:.4f}")

    def _validate(self) -> None:
        if self.validate is None:
            return
        model = self.state.model
        model.eval()
        score = self.validate(model)
        model.train()
        report_score(self.spec, self.state.counters, score)
