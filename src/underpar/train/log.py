"""What training says, in the field's log format: ``step:S/N train_loss:.. train_time:..ms ...``."""

from __future__ import annotations

from underpar import progress
from underpar.bits import Score
from underpar.recipe.schema import TrainSpec
from underpar.train import schedule
from underpar.train.counters import Counters

#: steps at the start of a run that are all logged
FIRST = 10


def position(spec: TrainSpec, c: Counters) -> str:
    """'step:100/5200 train_time:43450ms step_avg:434.50ms'."""
    milliseconds = 1000.0 * c.elapsed
    average = milliseconds / max(c.step, 1)
    return (
        f"step:{c.step}/{spec.iterations} train_time:{milliseconds:.0f}ms step_avg:{average:.2f}ms"
    )


def log_step(spec: TrainSpec, c: Counters, multiplier: float) -> None:
    """The line of a step: of the first ones, then of every ``log_every``-th."""
    if c.step <= FIRST or c.step % spec.log_every == 0:
        progress.current().line(
            f"step:{c.step}/{spec.iterations} train_loss:{c.losses[-1]:.4f} "
            f"train_time:{1000 * c.elapsed:.0f}ms step_avg:{1000 * c.elapsed / c.step:.2f}ms "
            f"lr_scale:{multiplier:.4f} tok/s:{c.step * spec.batch_tokens / c.elapsed:.0f}"
        )


def show_step(spec: TrainSpec, c: Counters, multiplier: float) -> None:
    """Metric and progress of a step."""
    sink, loss = progress.current(), c.losses[-1]
    rate = c.step * spec.batch_tokens / max(c.elapsed, 1e-9)
    left = (spec.iterations - c.step) * c.elapsed / c.step
    done, total = float(c.step), float(spec.iterations)
    budget = schedule.budget_seconds(spec)
    if budget and budget - c.elapsed < left:
        left, done, total = max(budget - c.elapsed, 0.0), c.elapsed, budget
    sink.metric(
        step=c.step,
        loss=loss,
        lr_scale=multiplier,
        tokens_per_second=rate,
        seconds=c.elapsed,
        seconds_left=left,
    )
    sink.update("train", done, total, f"step {c.step}, loss {loss:.4f}, {rate:.0f} tok/s", left)


def report_score(spec: TrainSpec, c: Counters, score: Score) -> None:
    """Log line and metric of a validation; a partial score says that it is one."""
    figures = f"val_loss:{score.nats_per_token:.4f} val_bpb:{score.bpb:.4f}"
    progress.current().line(f"{position(spec, c)} {figures if score.complete else score}")
    progress.current().metric(step=c.step, **score.to_json())
