"""The report's tables of a run: bytes, quantization errors, scores, proof, comparison.

Each function makes a section; without its data that is one sentence on what is missing. Sizes of
the parts are counted in the model file itself, if its size is the recorded one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from html import escape

from underpar.errors import UnderparError
from underpar.report.markup import Material, figure, missing, say, section, table
from underpar.report.plots import Bar, Part, bar_chart, stacked_bar
from underpar.report.tables import shipped_bpb, verdict
from underpar.stages import TITLES

#: What the sections of an artifact hold, and their tones.
PARTS = {
    "codes": ("weights", "a"),
    "scales": ("row scales of the weights", "a2"),
    "float16": ("small tensors, float16", "a3"),
    "bfloat16": ("small tensors, bfloat16", "a3"),
    "float32": ("small tensors, float32", "a3"),
}

#: Tensors with a smaller relative squared error count as exact: float16 rounding has 1e-7.
EXACT = 1e-6

#: 'blocks.4.attn.c_q.weight': the layer, and which of its matrices.
LAYERED = re.compile(r"(blocks|cores)\.(\d+)\.(.+?)(?:\.weight)?")


def size(material: Material) -> str:
    """Where the bytes of the artifact went."""
    from underpar.artifact.budget import account  # imports torch, for the types of tensors
    from underpar.recipe.schema import Budget

    title, facts = "Where the bytes went", material.record.artifact
    if facts is None:
        return section(title, missing("Nothing to count: this run has packed no artifact."))
    budget = material.record.recipe.get("budget", {})
    try:
        counted = account(
            material.run / "model.upar",
            Budget(
                bytes=facts.budget_bytes,
                count_tokenizer=bool(budget.get("count_tokenizer", False)),
            ),
            facts.code_bytes,
        )
    except UnderparError as error:
        return section(title, missing(f"The parts are not known: {error}"))
    if (counted.file_bytes, counted.total) != (facts.file_bytes, facts.total_bytes):
        return section(title, missing("The parts are not known: model.upar is not the record's."))
    drawn, rows = [], []
    for part in sorted(counted.parts, key=lambda part: (not part.counted, -part.bytes)):
        name, tone = PARTS.get(part.name, (part.name, "rest"))
        if part.counted:
            drawn.append(Part(name, part.bytes, tone))
        share = f"{part.bytes / counted.budget:.2%}" if part.counted else "not counted"
        key = f'<span class="key{f" {tone}" if part.counted else ""}"></span>'
        rows.append((key + escape(name), f"{part.bytes:,}", share))
    if counted.left >= 0:
        drawn.append(Part("free", counted.left, "free"))
        share = f"{counted.left / counted.budget:.2%}"
        rows.append(('<span class="key free"></span>free', f"{counted.left:,}", share))
    words = f"{counted.total:,} of {counted.budget:,} bytes"
    return section(
        title,
        say(f"Code and model file, as it lies on the disk, take {words}."),
        figure(stacked_bar("Bytes of code and model file", words, drawn)),
        table(["part", "bytes", "of the budget"], rows),
    )


def quantization(material: Material) -> str:
    """Squared error of each tensor: matrices by layer, the rest as bars."""
    title, errors = "What quantization lost", _errors(material)
    if not errors:
        return section(title, missing("No errors to show: the record has none."))
    lossy = {path: error for path, error in errors.items() if error >= EXACT}
    grid: dict[tuple[str, int], dict[str, float]] = {}
    rest: dict[str, float] = {}
    for path, error in lossy.items():
        if layered := LAYERED.fullmatch(path):
            grid.setdefault((layered[1], int(layered[2])), {})[layered[3]] = error
        else:
            rest[path] = error
    out = [say("Squared error of each stored matrix, in per cent of its squared weights.")]
    if grid:
        out.append(_by_layer(grid))
    if rest:
        bars = [Bar(path, error, f"{error:.2%}") for path, error in rest.items()]
        worst = max(rest, key=lambda path: rest[path])
        words = f"largest: {worst} with {rest[worst]:.2%}"
        out.append(figure(bar_chart("Quantization error outside the layers", words, bars)))
    kept = len(errors) - len(lossy)
    if kept:
        out.append(f'<p class="note">Each of {kept} more tensors lost less than 0.0001%.</p>')
    return section(title, *out)


def _errors(material: Material) -> dict[str, float]:
    found = material.record.diagnostics.get("quantization_error")
    if not isinstance(found, Mapping):
        return {}
    return {
        str(path): float(error)
        for path, error in found.items()
        if isinstance(error, int | float) and math.isfinite(error)
    }


def _by_layer(grid: Mapping[tuple[str, int], Mapping[str, float]]) -> str:
    """One row a layer, one column a matrix; the larger the error, the stronger a cell's tint."""
    columns = list(dict.fromkeys(name for row in grid.values() for name in row))
    worst = max(error for row in grid.values() for error in row.values())
    rows = []
    for room, layer in sorted(grid):
        cells = []
        for name in columns:
            error = grid[room, layer].get(name)
            tint = 0 if error is None else min(7, int(8 * error / worst))
            words = "–" if error is None else f"{100 * error:.2f}"
            cells.append(f"<td class=t{tint}>{words}</td>")
        rows.append(f"<tr><th scope=row>{room}.{layer}</th>{''.join(cells)}</tr>")
    head = "".join(f"<th scope=col>{escape(n).replace('.', '.<wbr>')}</th>" for n in columns)
    return (
        f'<div class="wide"><table class="heat"><thead><tr><th scope=col>layer</th>{head}</tr>'
        f"</thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def scores(material: Material) -> str:
    """The scores of the run's stages, as recorded."""
    record = material.record
    if not record.stages:
        return section("Scores", missing("Nothing has been scored yet."))
    stage, best = record.best()
    rows = [
        (
            escape(TITLES[name]),
            f"{score.bpb:.5f}",
            f"{score.nats_per_token:.5f}",
            f"{score.seconds:.1f}",
        )
        for name, score in record.stages.items()
    ]
    return section(
        "Scores",
        say(
            f"Each stage from its file, on the whole validation stream: {best.tokens:,} tokens, "
            f"{best.bytes:,} bytes."
        ),
        table(
            ["stage", "bits per byte", "nats per token", "seconds"],
            rows,
            ours=[list(record.stages).index(stage)],
        ),
    )


def proof(material: Material) -> str:
    """Claimed and coded bits of the held-out text, if the record has a proof."""
    title, kept = "The proof", material.record.diagnostics.get("proof")
    if not isinstance(kept, dict):
        return section(title, missing("Not proven yet; the command below does it."))
    try:
        lanes = f"in {kept['lanes']} lanes" if kept["lanes"] else "by the exact schedule"
        how = f"{lanes}, {'adapting' if kept['adapts'] else 'not adapting'}"
        rows = [
            ("claimed", f"{kept['claimed_bits']:,.0f}", f"{kept['claim']['bpb']:.5f}"),
            (
                "coded",
                f"{kept['coded_bits']:,}",
                f"{kept['coded_bits'] / kept['claim']['bytes']:.5f}",
            ),
        ]
        found = (
            f"{'The same' if kept['text_same'] else 'Another'} text came back from "
            f"{kept['file_bytes']:,} bytes, in a process that had the model and nothing else: "
            f"{100 * kept['difference']:+.4f} % from the claim. "
            f"Coded {how}, {kept['encode_seconds']:.0f} s there and "
            f"{kept['decode_seconds']:.0f} s back."
        )
        holds = bool(kept["holds"])
    except (KeyError, TypeError, ValueError):
        return section(title, missing("The record's proof cannot be read."))
    return section(
        title,
        say("Proven: the text was decoded." if holds else "NOT proven."),
        table(["", "bits", "bits per byte"], rows),
        f'<p class="note">{escape(found)}</p>',
    )


def comparison(material: Material) -> str:
    """General compressors on the same text, as bars and as a table, with both ways of counting."""
    title, record = "Against general compressors", material.record
    if not material.rows or not record.stages:
        return section(title, missing("Not compared: no compressor was run on this text."))
    stage, best = record.best()
    ours = f"underpar, {stage}"
    known = [(r.name, r.with_prior_bpb, "a2") for r in material.rows]
    drawn = sorted(
        ((n, v, tone) for n, v, tone in [*known, (ours, best.bpb, "b")] if v is not None),
        key=lambda bar: bar[1],
    )
    chart = bar_chart(
        "Bits per byte, the training text known to all",
        ", ".join(f"{name} {value:.3f}" for name, value, _ in drawn),
        [Bar(name, value, f"{value:.3f}", tone) for name, value, tone in drawn],
    )
    rows = [
        (escape(r.label), _bpb(r.alone_bpb), _bpb(r.with_prior_bpb), _bpb(r.alone_bpb))
        for r in material.rows
    ]
    for name, score in record.stages.items():
        shipped = shipped_bpb(record, score) if name != "float" else None
        rows.append((f"underpar, {TITLES[name]}", "–", _bpb(score.bpb), _bpb(shipped)))
    words = [*verdict(record, material.rows)[1:]]
    words += [f"{r.label}: not measured, {r.missing}." for r in material.rows if r.missing]
    return section(
        title,
        say("Bits per byte when the training text is known: what the held-out text adds to it."),
        figure(chart),
        table(
            ["bits per byte", "alone", "knowing the training text", "everything shipped"],
            rows,
            ours=[len(material.rows) + list(record.stages).index(stage)],
        ),
        *(f'<p class="note">{escape(line)}</p>' for line in words),
    )


def _bpb(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
