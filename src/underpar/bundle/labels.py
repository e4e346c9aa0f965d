"""What a log says of sizes and scores, in the published line formats, with the labels of #1413.

The program that runs a recipe prints these lines, and the logs of a submission, which are made from
records, have the same.
"""

from __future__ import annotations

from collections.abc import Iterator

from underpar.bits import Score

#: stage of a record -> label of its line
LABELS = {
    "float": "pre-quantization",
    "quantized": "quantized",
    "sliding": "quantized_sliding_window",
    "ttt": "legal_ttt_exact",
}


def score_line(stage: str, average: str, score: Score) -> str:
    """The last stage's eight decimals are the headline. average: ``TrainSpec.average``."""
    label = LABELS[stage]
    if stage == "float" and average != "none":
        label += f" post-{average}"
    return (
        f"{label} val_loss:{score.nats_per_token:.8f} val_bpb:{score.bpb:.8f} "
        f"eval_time:{1000 * score.seconds:.0f}ms"
    )


def size_lines(compressor: str, code_bytes: int, model_bytes: int) -> Iterator[str]:
    """model_bytes: of the file, as far as they count."""
    packed = f"quantized+{compressor}"
    yield f"Code size: {code_bytes} bytes"
    yield f"Serialized model {packed}: {model_bytes} bytes"
    yield f"Total submission size {packed}: {model_bytes + code_bytes} bytes"
