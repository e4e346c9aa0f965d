"""The report's pictures of a run: training, adaptation, documents, the text itself.

Each function makes a section; without its data that is one sentence on what is missing. Scores are
the record's; curves are means of the losses that belong to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from underpar.report import curves, surprise
from underpar.report.markup import Material, figure, missing, say, section
from underpar.report.plots import Bar, Series, bar_chart, line_chart
from underpar.report.record import Record
from underpar.stages import TITLES

#: Most pieces of the validation stream in the picture of adaptation, least bytes of a piece.
STREAM_BINS, STREAM_BYTES = 100, 2000

#: Most documents that get a bar, and that get an excerpt.
MOST_BARS, MOST_EXCERPTS = 24, 10

#: Upright lines where documents begin, at most: more would make the picture grey.
MOST_UPRIGHTS = 40

_NAMES = ("without", "with test-time training")


def training(material: Material) -> str:
    """Loss and learning rate over the steps."""
    got, title = curves.read_training(material.run), "Training"
    steps, loss = got.loss
    if not len(steps):
        return section(title, missing("No curves: metrics.jsonl has no training step."))
    lines = [Series("training" if len(got.validation[0]) else "", steps, loss)]
    if len(got.validation[0]):
        lines.append(Series("validation", *got.validation, tone="b"))
    start = len(loss) // 50  # the steep fall of the first steps would leave no height for the rest
    seen = np.concatenate([loss[start:], got.validation[1]])
    low, high = float(seen.min()), float(seen.max())
    room = 0.08 * (high - low) or 0.5
    above = int((loss > high + room).sum())
    cut = f" The first {above} steps, up to {loss.max():.2f}, lie above the picture."
    words = f"{loss[0]:.3f} at the first step, {loss[-1]:.3f} at the last, number {steps[-1]:,.0f}"
    left = figure(
        line_chart(
            "Training loss",
            words,
            lines,
            y_name="nats per token",
            x_name="steps",
            limits=(low - room, high + room),
        ),
        f"Loss of the batch: {words}.{cut if above else ''}",
    )
    right = figure(
        line_chart(
            "Learning rate",
            f"multiplier from {got.scale[1][0]:.3g} to {got.scale[1][-1]:.3g}",
            [Series("", *got.scale)],
            y_name="× learning rate",
            x_name="steps",
            limits=(0.0, 1.12 * max(float(got.scale[1].max()), 1e-9)),
        ),
        f"What every learning rate is multiplied by.{_rates(material.record)}",
    )
    return section(title, f'<div class="pair">{left}{right}</div>')


def _rates(record: Record) -> str:
    train = record.recipe.get("train", {})
    rates = [(name, train[f"{name}_lr"]) for name in ("matrix", "token") if f"{name}_lr" in train]
    return " Base: " + ", ".join(f"{n} {r:g}" for n, r in rates) + "." if rates else ""


def adaptation(material: Material) -> str:
    """bpb along the validation stream, with and without test-time training."""
    title, nll, data = "Along the validation text", material.nll, material.validation
    stages = [s for s in (material.before, "ttt") if s is not None and s in nll]
    if not stages:
        return section(title, missing("No picture: the losses of this run were not kept."))
    bins = max(2, min(STREAM_BINS, data.true_bytes // STREAM_BYTES))
    curve = {stage: curves.along(nll[stage], data, bins) for stage in stages}
    unit, name = (1e6, "MB") if data.true_bytes >= 1e7 else (1e3, "kB")
    both = len(stages) > 1
    lines = [
        Series(_NAMES[stage == "ttt"] if both else "", at / unit, bpb, "ab"[stage == "ttt"])
        for stage, (at, bpb) in curve.items()
    ]
    starts = curves.offsets(data)[data.documents[1:]] / unit
    drawn = starts.tolist() if 0 < len(starts) <= MOST_UPRIGHTS else []
    scores = material.record.stages
    chart = line_chart(
        "Bits per byte along the validation text",
        "; ".join(f"{TITLES[s]}: {scores[s].bpb:.4f} over all" for s in stages),
        lines,
        y_name="bits per byte",
        x_name=name,
        marks=drawn,
        span=(0.0, data.true_bytes / unit),
        shade=both,
        height=320,
    )
    caption = f"Means over {data.n_targets / bins:,.0f} tokens each."
    caption += " Uprights: where a document begins." if drawn else ""
    out = [say(_adapted(material, stages)), figure(chart, caption)]
    if both:
        at, saved = curves.saved_so_far(nll[stages[0]], nll["ttt"], data, bins)
        gain = line_chart(
            "Bits saved by test-time training so far",
            f"{saved[-1]:.1f} per cent at the end of the text",
            [Series(f"{saved[-1]:.1f}%", at / unit, saved, "b")],
            y_name="% of all bits so far, saved by learning",
            x_name=name,
            limits=(1.2 * min(0.0, float(saved.min())), 1.3 * max(1.0, float(saved.max()))),
            span=(0.0, data.true_bytes / unit),
            marks=drawn,
            height=200,
        )
        out.append(figure(gain))
    return section(title, *out)


def _adapted(material: Material, stages: Sequence[str]) -> str:
    scores = material.record.stages
    if len(stages) < 2:
        return f"{scores[stages[0]].bpb:.4f} bits per byte over the whole stream."
    before, after = (scores[s].bpb for s in stages)
    change = f"{abs(1 - after / before):.1%} {'less' if after < before else 'more'}"
    return (
        "The model learns from each chunk of text after that chunk has been scored. That takes "
        f"{before:.4f} to {after:.4f} bits per byte, {change}."
    )


def documents(material: Material) -> str:
    """bpb of each document; of many documents, those with the highest and the lowest."""
    title, stage = "Document by document", material.shown
    if stage is None:
        return section(title, missing("No bars: the losses of this run were not kept."))
    bpb = curves.by_document(material.nll[stage], material.validation)
    marks = None
    if stage == "ttt" and material.before:
        marks = curves.by_document(material.nll[material.before], material.validation)
    known = np.flatnonzero(np.isfinite(bpb))
    if not len(known):
        return section(title, missing("No bars: no document is scored as a whole."))
    order, note = known, f"Bars: {TITLES[stage].lstrip('+ ')}."
    if len(known) > MOST_BARS:
        ranked = known[np.argsort(bpb[known])[::-1]]
        half = MOST_BARS // 2
        order = np.concatenate([ranked[:half], ranked[-half:]])
        note += f" The {half} dearest and the {half} cheapest of {len(known):,} documents."
    if marks is not None:
        note += " Uprights: the same document without test-time training."
    bars = [
        Bar(
            f"document {d + 1}",
            float(bpb[d]),
            f"{bpb[d]:.3f}",
            "b" if stage == "ttt" else "a",
            None if marks is None or np.isnan(marks[d]) else float(marks[d]),
        )
        for d in order.tolist()
    ]
    words = f"{bpb[known].min():.3f} to {bpb[known].max():.3f} over {len(known):,} documents"
    chart = bar_chart("Bits per byte of each document", words, bars)
    return section(title, say(f"Bits per byte, {words}."), figure(chart, note))


def text(material: Material, room: int) -> str:
    """Excerpts coloured by bits per token, in ``room`` bytes."""
    title, stage = "Where it is surprised", material.shown
    if stage is None:
        return section(title, missing("No text: the losses of this run were not kept."))
    found = surprise.excerpts(
        material.nll[stage],
        material.validation,
        material.tokenizer,
        documents=MOST_EXCERPTS,
        room=room,
    )
    out = [
        say(
            f"Bits that each token cost ({TITLES[stage].lstrip('+ ')}): plain text was "
            "foreseen, a strong tint was dear."
        ),
        surprise.legend(),
    ]
    for i, part in enumerate(found):
        opening = escape(part.opening[:48])
        out.append(
            f"<details{' open' if i == 0 else ''}><summary><b>Document {part.document + 1}</b> "
            f"<span>{opening}…</span></summary>"
            f'<div class="text" dir=auto lang="" tabindex=0>{part.html}</div>'
            f'<p class="note">{part.tokens:,} of {part.of:,} tokens</p></details>'
        )
    return section(title, *out)
