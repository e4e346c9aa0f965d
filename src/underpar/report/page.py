"""The report of a run: RUN/report.html, one file that needs nothing else.

No script, no font, no picture from elsewhere, and a content policy that forbids all of them: the
page opens without a network and will look the same in ten years. Headline first, then pictures,
then tables, then the commands that reproduce the numbers. Excerpts of the text fill what the rest
leaves of the page's largest size.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from underpar import storage
from underpar.data.detokenizer import Detokenizer
from underpar.data.validation import ValidationSet
from underpar.errors import DataError
from underpar.report import accounts, pictures
from underpar.report.compressors import Row
from underpar.report.curves import Losses, of_record
from underpar.report.markup import Material, missing, section
from underpar.report.record import Record
from underpar.report.style import STYLE
from underpar.report.tables import comparison_table, verdict
from underpar.stages import TITLES, stage_of

#: The largest page, in bytes, and the largest share of it for excerpts.
MOST_BYTES, MOST_TEXT = 300_000, 220_000


def write_report(
    run: Path,
    *,
    nll: Mapping[str, Losses],
    validation: ValidationSet,
    tokenizer: Detokenizer,
    data: Path | None = None,
) -> Path:
    """Write RUN/report.html and return its path.

    nll: stage -> nats of each target of ``validation``, NaN where unknown; those that do not add up
    to the record's score are left out. data: the folder of shards, for the commands. DataError: no
    record.
    """
    run = Path(run)
    record = Record.read(run / "record.json")
    material = Material(
        run,
        record,
        of_record(nll, record, validation),
        validation,
        tokenizer,
        _comparable(record),
        data,
    )
    path = run / "report.html"
    storage.write_text(path, render(material))
    return path


def render(material: Material) -> str:
    """The page as text, below MOST_BYTES bytes."""
    above = [
        _opening(material),
        pictures.training(material),
        pictures.adaptation(material),
        accounts.size(material),
        accounts.quantization(material),
        pictures.documents(material),
    ]
    below = [
        accounts.proof(material),
        accounts.comparison(material),
        accounts.scores(material),
        _commands(material),
        _footer(material),
        "</body></html>\n",
    ]
    used = sum(len(part.encode()) for part in above + below)
    # 10,000 for the frame around the excerpts: headings, legend, openings of the documents
    room = max(0, min(MOST_TEXT, MOST_BYTES - 10_000 - used))
    return "".join([*above, pictures.text(material, room), *below])


def _comparable(record: Record) -> Sequence[Row]:
    """The compressors' rows, none if they are of another version or of another text."""
    try:
        rows = [Row(**row) for row in record.diagnostics.get("compressors", [])]
        comparison_table(record, rows)
    except (TypeError, KeyError, AttributeError, DataError):
        return []
    return rows


def _opening(material: Material) -> str:
    """Head of the file and headline of the page."""
    record = material.record
    if record.stages:
        stage, score = record.best()
        title = f"{record.name}: {score.bpb:.4f} bits per byte"
        how = TITLES[stage].lstrip("+ ")
        big = f"<h1><b>{score.bpb:.4f}</b>bits per byte</h1>"
        said = f'<p class="verdict">{escape(_verdict(material))}</p>'
        kicker = f"{record.name}, seed {record.seed}, {how}"
    else:
        title, kicker = record.name, f"{record.name}, seed {record.seed}"
        big, said = "<h1>No score yet</h1>", missing("Nothing has been scored in this run.")
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none';style-src 'unsafe-inline'\">"
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>"
        f'<header><p class="kicker">{escape(kicker)}</p>{big}{said}{_facts(record)}</header>'
    )


def _verdict(material: Material) -> str:
    """A sentence on the score, made from the numbers: what beats it, or what each stage changed."""
    record = material.record
    if material.rows and (found := verdict(record, material.rows)):
        return found[0]
    stages = record.stages
    parts = []
    if "float" in stages and "quantized" in stages:
        cost = stages["quantized"].bpb / stages["float"].bpb - 1
        parts.append(
            f"quantization {'costs' if cost >= 0 else 'saves'} {abs(cost):.1%} of the bits"
        )
    if "sliding" in stages and "ttt" in stages:
        gain = 1 - stages["ttt"].bpb / stages["sliding"].bpb
        verb = "saves" if gain >= 0 else "costs"
        parts.append(f"learning from text already scored {verb} {abs(gain):.1%}")
    sentence = ", and ".join(parts) or f"{record.best()[1].bytes:,} bytes of text are scored"
    return f"{sentence[0].upper()}{sentence[1:]}."


def _facts(record: Record) -> str:
    facts = []
    if kept := record.artifact:
        share = kept.total_bytes / kept.budget_bytes
        facts.append(
            ("Size", f"{kept.total_bytes:,} B", f"{share:.1%} of {kept.budget_bytes:,} bytes")
        )
    if done := record.train:
        facts.append(
            (
                "Training",
                f"{done.seconds:,.0f} s",
                f"{done.steps:,} steps, {done.tokens / 1e6:,.2f} million tokens",
            )
        )
    if data := record.data:
        text = "normalised text" if data.normalized else "raw text"
        many = f"{data.val_documents:,} document{'s' * (data.val_documents != 1)}"
        facts.append(("Scored on", f"{data.val_bytes:,} B", f"{many}, {text}"))
    rows = "".join(f"<div><dt>{a}</dt><dd>{b}<small>{c}</small></dd></div>" for a, b, c in facts)
    return f'<dl class="facts">{rows}</dl>' if rows else ""


def _commands(material: Material) -> str:
    """The commands that repeat the run, its score, its proof and this page."""
    run, record = material.run, material.record
    data = shlex.quote(str(material.data)) if material.data else "DATA"
    model = shlex.quote(str(run / "model.upar"))
    steps = [("This run", record.command)] if record.command else []
    shipped = {stage: score for stage, score in record.stages.items() if stage != "float"}
    if shipped:
        stage, score = min(shipped.items(), key=lambda item: item[1].bpb)
        steps += [
            (
                f"The score again, from the file: {score.bpb:.5f} bits per byte",
                f"underpar score {model} --data {data} --stage {stage_of(stage).how}",
            ),
            (
                "Its proof: code the text, decode it, compare",
                f"underpar prove {model} --data {data}",
            ),
        ]
    again = f"underpar report {shlex.quote(str(run))}"
    steps.append(("This page", f"{again} --data {data}" if material.data else again))
    body = "".join(
        f'<p class="step">{escape(what)}</p><pre class="copy">{_words(line)}</pre>'
        for what, line in steps
    )
    if not material.data and shipped:
        body += '<p class="note">DATA: the folder of shards that the run was scored on.</p>'
    recipe = escape(json.dumps(record.recipe, indent=1), quote=False)
    body += f"<details><summary>The complete recipe</summary><pre>{recipe}</pre></details>"
    return section("Commands", body)


def _words(line: str) -> str:
    """A command that breaks between its words only, not after the hyphens of an option."""
    return " ".join(f"<span>{escape(word)}</span>" for word in line.split(" "))


def _footer(material: Material) -> str:
    record = material.record
    machine = record.machine
    memory = f"{machine.memory_gb:g} GB" if machine.memory_gb else ""
    parts = [machine.gpu, f"{machine.cpu}, {machine.cores} cores", memory, machine.platform]
    lines = [
        " · ".join(escape(part) for part in parts if part),
        "Python " + escape(machine.python) + " · "
        + " · ".join(f"{escape(name)} {escape(v)}" for name, v in record.versions.items()),
        f"{escape(record.date)} · commit <code>{escape(record.commit or 'unknown')}</code>",
        f"recipe <code>{escape(record.recipe_digest)}</code>",
    ]  # fmt: skip
    if record.artifact:
        lines.append(f"model.upar <code>{escape(record.artifact.sha256)}</code>")
    return f"<footer>{''.join(f'<p>{line}</p>' for line in lines)}</footer>"
