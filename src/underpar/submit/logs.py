"""A run's log in the line formats of the published entries, so that their readers can read it.

Hyper-parameters, sorted, as #1413 prints them; the lines of training as the run logged them, whose
format is #456's; then sizes and scores with the labels of #1413. These come from the record, at
full length: a score with its eight decimals, a size with the code as it is shipped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from underpar.errors import DataError
from underpar.recipe.load import flatten
from underpar.stages import score_line, size_lines, stage_of
from underpar.submit.runs import Run

#: Lines of log.txt that belong in a published log; the rest is printed from the record.
_TRAINING = re.compile(
    r"step:|stopping_early:|layer_loop:|late_qat:|interrupted |resumed at |training in |calibrated "
)
_STEP = re.compile(r"^step:(\d+)/(\d+) train_loss:", re.MULTILINE)


def log_name(run: Run) -> str:
    return f"train_seed{run.seed}.log"


def published_log(run: Run, code_bytes: int) -> str:
    """The log of a run as text. code_bytes: of train_gpt.py as it is shipped.

    DataError when log.txt is of another run: its last step is not the record's.
    """
    lines = [*_head(run), *_training_lines(run), *_sizes(run, code_bytes), *_scores(run)]
    return "\n".join(lines) + "\n"


def _head(run: Run) -> Iterator[str]:
    record, machine = run.record, run.record.machine
    yield "Hyperparameters:"
    yield from (f"  {key}: {value}" for key, value in sorted(flatten(run.recipe).items()))
    yield f"command: {record.command}"
    yield f"date: {record.date}"
    yield f"Python {machine.python}, {machine.platform}"
    yield from (f"{package} {version}" for package, version in record.versions.items())
    yield f"commit: {record.commit or 'none'}"
    yield f"machine: {machine.gpu or 'no GPU'}, {machine.cores} cores of {machine.cpu}"
    yield f"train_tokens: {run.data.train_tokens}"
    yield f"val_tokens: {run.data.val_tokens}"
    yield f"val_bytes: {run.data.val_bytes}"


def _training_lines(run: Run) -> list[str]:
    text = run.log.read_text(encoding="utf-8", errors="replace")
    steps = _STEP.findall(text)
    last, total = steps[-1] if steps else ("none", str(run.recipe.train.iterations))
    planned = str(run.recipe.train.iterations)
    if not steps or int(last) > run.train.steps or total != planned:
        raise DataError(
            f"log {run.log}",
            got=f"last step {last} of {total}",
            wanted=f"the log of the record's {run.train.steps} steps of {planned}",
            do="Each run folder needs the log of its own run.",
        )
    return [line for line in text.splitlines() if _TRAINING.match(line)]


def _sizes(run: Run, code_bytes: int) -> Iterator[str]:
    yield (
        f"train_done steps:{run.train.steps} train_time:{1000 * run.train.seconds:.0f}ms "
        f"step_avg:{1000 * run.train.seconds / max(run.train.steps, 1):.2f}ms "
        f"stop:{run.train.stop_reason}"
    )
    yield from size_lines(run.recipe.quant.compressor, code_bytes, run.counted_bytes)


def _scores(run: Run) -> Iterator[str]:
    for stage, score in run.record.stages.items():
        yield score_line(stage_of(stage), run.recipe.train.average, score)
