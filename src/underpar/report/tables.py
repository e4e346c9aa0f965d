"""Plain-text tables: for terminals, logs, READMEs.

``render`` aligns columns by what a terminal shows (wide and combining characters counted as they
are displayed); ``markdown=True`` gives the same table for a README. Two tables of a run are made
with it: its stages, and its comparison with general compressors.

A comparison counts bytes in two ways. *Text alone* counts only the coded text, the rule of the
competition: neither the model nor the training text that a compressor knows is counted. *Everything
shipped* counts artifact and code as well, (artifact + code + text) * 8 / bytes: the rule of the
text compression benchmarks. A model of megabytes cannot win the second on a short text; a sentence
below the table states the length from which it would.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from underpar.bits import Score, compressed_bpb, megabytes
from underpar.errors import DataError
from underpar.report.compressors import Row
from underpar.report.record import Record
from underpar.stages import TITLES


def display_width(text: str) -> int:
    """Terminal columns that ``text`` occupies."""
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(map(bool, map(unicodedata.combining, text)))


def render(
    headers: Sequence[str],
    rows: Sequence[Sequence[object]],
    align: str = "",
    *,
    markdown: bool = False,
) -> str:
    """A table as text without a trailing newline. None prints as a dash.

    align: one of 'l', 'r' per column; default: first left, others right.
    """
    align = align or "l" + "r" * (len(headers) - 1)
    cells = [["–" if cell is None else str(cell) for cell in row] for row in [headers, *rows]]
    if any(len(row) != len(align) for row in cells):
        raise ValueError(f"every row and align need {len(align)} cells")
    if markdown:
        cells = [[cell.replace("|", "\\|") for cell in row] for row in cells]
    least = 2 if markdown else 0  # room for the mark of right alignment, '-:'
    widths = [max(least, *map(display_width, column)) for column in zip(*cells)]
    lines = [
        [_pad(cell, width, side) for cell, width, side in zip(row, widths, align)] for row in cells
    ]
    if markdown:
        marks = ["-" * (w - (s == "r")) + ":" * (s == "r") for w, s in zip(widths, align)]
        return "\n".join(f"| {' | '.join(line)} |" for line in [lines[0], marks, *lines[1:]])
    body = [" │ ".join(line).rstrip() for line in lines]
    rule = "─┼─".join("─" * width for width in widths)
    return "\n".join([body[0], rule, *body[1:]])


def _pad(cell: str, width: int, side: str) -> str:
    space = " " * (width - display_width(cell))
    return space + cell if side == "r" else cell + space


def stage_table(record: Record, *, markdown: bool = False) -> str:
    """One line a stage: bits per byte, nats per token, how much was scored, in what time."""
    headers = ["stage", "bpb", "nats/token", "tokens", "bytes", "coverage", "seconds"]
    rows = [
        [
            TITLES[stage],
            f"{score.bpb:.5f}",
            f"{score.nats_per_token:.5f}",
            f"{score.tokens:,}",
            f"{score.bytes:,}",
            f"{100 * score.coverage:.0f}%",
            f"{score.seconds:.1f}",
        ]
        for stage, score in record.stages.items()
    ]
    return render(headers, rows, markdown=markdown)


def comparison_table(record: Record, rows: Sequence[Row], *, markdown: bool = False) -> str:
    """Compressors and stages on the held-out text, then in words which is smaller by each count.

    rows: from ``compressors.measure`` on the validation text with the training text as prior.
    DataError when the record has no stage or the rows are of a text of another length.
    """
    _check_same_text(record, rows)
    lines = [
        [row.label, _bpb(row.alone_bpb), _bpb(row.with_prior_bpb), _bpb(row.alone_bpb)]
        for row in rows
    ]
    for stage, score in record.stages.items():
        shipped = shipped_bpb(record, score) if stage != "float" else None
        lines.append([f"underpar, {TITLES[stage]}", None, _bpb(score.bpb), _bpb(shipped)])
    headers = ["bits per byte", "alone", "knowing the training text", "everything shipped"]
    missing = [f"{row.label}: not measured, {row.missing}." for row in rows if row.missing]
    table = render(headers, lines, markdown=markdown)
    gap = "\n\n" if markdown else "\n"  # Markdown would run the sentences into one paragraph
    return "\n\n".join([table, gap.join([*verdict(record, rows), *missing])]).rstrip()


def verdict(record: Record, rows: Sequence[Row]) -> list[str]:
    """Sentences, made from the numbers: which compressors the best shipped stage beats."""
    stage, score = record.best()
    sentences = [_text_alone(TITLES[stage], score, rows)]
    if stage != "float":
        sentences.append(_everything_shipped(record, score, rows))
    return [sentence for sentence in sentences if sentence]


def _text_alone(title: str, score: Score, rows: Sequence[Row]) -> str:
    theirs = {row.name: bpb for row in rows if (bpb := row.with_prior_bpb) is not None}
    if not theirs:
        return ""
    ranked = sorted(theirs, key=lambda name: theirs[name])
    lost = [name for name in ranked if theirs[name] <= score.bpb]
    won = [name for name in ranked if theirs[name] > score.bpb]
    best = theirs[ranked[0]]
    gap = best / score.bpb - 1
    side = "below" if lost else "above"
    end = f"Best of them: {ranked[0]} at {best:.3f}, {abs(gap):.1%} {side} us."
    verbs = [f"does not beat {_and(lost)}"] * bool(lost) + [f"beats {_and(won)}"] * bool(won)
    return f"Text alone: our {score.bpb:.3f} ({title}) {', but '.join(verbs)}. {end}"


def _everything_shipped(record: Record, score: Score, rows: Sequence[Row]) -> str:
    ours = shipped_bpb(record, score)
    theirs = {row.name: bpb for row in rows if (bpb := row.alone_bpb) is not None}
    if ours is None or not theirs or record.artifact is None:
        return ""
    fixed = record.artifact.file_bytes + record.artifact.code_bytes
    name = min(theirs, key=lambda n: theirs[n])
    best = theirs[name]
    opening = (
        f"Everything shipped: {fixed:,} bytes of model and code make it {ours:.3f} on this text, "
        f"against {best:.3f} for {name} (whose program is not counted)"
    )
    if ours < best:
        return f"{opening}: the model pays for itself."
    if score.bpb >= best:
        return f"{opening}: no length of text would pay for the model."
    least = megabytes(8 * fixed / (best - score.bpb))
    return f"{opening}; at these rates the model is worth shipping for texts of {least} or more."


def _check_same_text(record: Record, rows: Sequence[Row]) -> None:
    """Texts may differ by the separators between documents, which a model sees as tokens."""
    for score in record.stages.values():
        for row in rows:
            if abs(row.text_bytes - score.bytes) > 0.01 * score.bytes:
                raise DataError(
                    f"comparison with {row.name}",
                    got=f"measured on {row.text_bytes:,} bytes",
                    wanted=f"the validation text, {score.bytes:,} bytes",
                )


def shipped_bpb(record: Record, score: Score) -> float | None:
    """(artifact + code + coded text) * 8 / bytes, the tokenizer inside the artifact included."""
    if record.artifact is None:
        return None
    fixed = record.artifact.file_bytes + record.artifact.code_bytes
    return score.bpb + compressed_bpb(fixed, score.bytes)


def _bpb(value: float | None) -> str | None:
    return None if value is None else f"{value:.3f}"


def _and(names: Sequence[str]) -> str:
    """'a', 'a and b', 'a, b and c'."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if names[1:] else names)
