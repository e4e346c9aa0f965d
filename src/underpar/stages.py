"""The stages of a run that are scored: one table, which every list of them is read from.

The labels are those of #1413's logs. Whoever prints a score or reads one back finds name, title,
file and label here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

from underpar.bits import Score

#: How a file is scored: windows side by side, overlapping, or overlapping with score-first TTT.
How = Literal["plain", "sliding", "ttt"]


class Stage(NamedTuple):
    """name: in records. file: in the run folder. title: in tables. label: of its log line."""

    name: str
    file: str
    how: How
    title: str
    label: str


#: In the order of the line.
STAGES = (
    Stage("float", "float.upar", "plain", "before quantization", "pre-quantization"),
    Stage("quantized", "model.upar", "plain", "quantized", "quantized"),
    Stage("sliding", "model.upar", "sliding", "+ sliding windows", "quantized_sliding_window"),
    Stage("ttt", "model.upar", "ttt", "+ score-first TTT", "legal_ttt_exact"),
)
NAMES = tuple(stage.name for stage in STAGES)
TITLES = {stage.name: stage.title for stage in STAGES}


def stage_of(name: str) -> Stage:
    """The stage that a record calls ``name``."""
    return STAGES[NAMES.index(name)]


def planned(ttt: bool) -> tuple[Stage, ...]:
    """The stages that a run scores, in order. ttt: ``recipe.score.ttt``."""
    return tuple(stage for stage in STAGES if ttt or stage.how != "ttt")


def score_line(stage: Stage, average: str, score: Score) -> str:
    """The last stage's eight decimals are the headline. average: ``TrainSpec.average``."""
    averaged = f" post-{average}" if stage.name == "float" and average != "none" else ""
    return (
        f"{stage.label}{averaged} val_loss:{score.nats_per_token:.8f} val_bpb:{score.bpb:.8f} "
        f"eval_time:{1000 * score.seconds:.0f}ms"
    )


def size_lines(compressor: str, code_bytes: int, model_bytes: int) -> Iterator[str]:
    """model_bytes: of the file, as far as they count."""
    packed = f"quantized+{compressor}"
    yield f"Code size: {code_bytes} bytes"
    yield f"Serialized model {packed}: {model_bytes} bytes"
    yield f"Total submission size {packed}: {model_bytes + code_bytes} bytes"
