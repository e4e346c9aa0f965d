"""The audit as one HTML file that needs nothing else: no script, no font, no picture.

It looks like the report of a run, and its content policy forbids everything else too. All text goes
through ``html.escape`` after ``words.clean``.
"""

from __future__ import annotations

import re
from html import escape

from underpar.audit.review import DEMANDS, Audit, Verdict, place
from underpar.audit.words import clean
from underpar.report.markup import section, table
from underpar.report.style import STYLE

TITLES: dict[Verdict, str] = {
    "clean": "Clean",
    "violated": "Violated",
    "no verdict": "No verdict",
}
EXTRA = """
h1 b{font-size:clamp(2.5rem,11vw,4rem)}h1.clean b{color:var(--a)}
.rule{padding:.8rem 0;border-bottom:1px solid var(--rule)}.rule p{max-width:44rem}
.rule b{font-weight:650}.chip{display:inline-block;margin-left:.5rem;padding:0 .5rem;
border:1px solid currentcolor;border-radius:1rem;font-size:.8125rem;white-space:nowrap}
.bad{color:var(--b)}.good{color:var(--a)}.open{color:var(--soft)}
.rule small{display:block;color:var(--soft);font-size:.8125rem}
.words td,.words th{text-align:left}.words td{min-width:6rem}
.words td:last-child{overflow-wrap:anywhere}
.plain{padding-left:1.1rem}.plain li{margin:.3rem 0;max-width:44rem;overflow-wrap:anywhere}
"""
CHIPS = {"holds": "good", "violated": "bad", "not_exercised": "open", "unknown": "open"}
POLICY = "default-src 'none';style-src 'unsafe-inline'"


def page(audit: Audit) -> str:
    """The whole page."""
    parts = [
        _opening(audit),
        section("Conditions", *(_condition(audit, i) for i in range(len(audit.conditions)))),
        _claims(audit),
        _findings(audit),
        section("How it ran", f'<p class="say">{_shown(audit.smoke, 1000)}</p>', _settings(audit)),
    ]
    if audit.cautions:
        items = "".join(f"<li>{_shown(caution, 1000)}</li>" for caution in audit.cautions)
        parts.append(section("Caveats", f'<ul class="plain">{items}</ul>'))
    parts.append(
        "<footer><p>A condition is judged by running the code, never by reading it. Again: "
        "<code>underpar audit PATH</code></p></footer></body></html>\n"
    )
    return "".join(parts)


def _shown(text: object, most: int = 400) -> str:
    return escape(clean(text, most))


def _name(text: object) -> str:
    """A name that breaks where a reader would break it."""
    return re.sub(r"([_:/])", r"\1<wbr>", _shown(text))


def _frame(title: str, kicker: str, rest: str) -> str:
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f"<title>{title}</title><style>{STYLE}{EXTRA}</style></head><body>"
        f'<header><p class="kicker">{kicker}</p>{rest}</header>'
    )


def _opening(audit: Audit) -> str:
    title = TITLES[audit.verdict]
    kind = "clean" if audit.verdict == "clean" else ""
    return _frame(
        f"{_shown(audit.script)}: {audit.verdict}",
        _shown(audit.submission.root),
        f'<h1 class="{kind}"><b>{title}</b>{_shown(audit.script)}</h1>'
        f'<p class="verdict">{_shown(audit.recommendation)}</p>',
    )


def _chip(verdict: str) -> str:
    return f'<span class="chip {CHIPS[verdict]}">{verdict.replace("_", " ")}</span>'


def _condition(audit: Audit, i: int) -> str:
    condition = audit.conditions[i]
    told = [condition.witness, condition.why]
    words = "".join(f"<p>{_shown(text, 1000)}</p>" for text in told if text)
    return (
        f'<div class="rule"><p><b>{condition.name}</b>{_chip(condition.verdict)}'
        f"<small>{DEMANDS[condition.name]}</small></p>{words}</div>"
    )


def _claims(audit: Audit) -> str:
    if not audit.claims:
        return ""
    rows = [
        (_shown(c.name), _chip(c.verdict), _shown(c.claimed), _shown(c.measured), _shown(c.note))
        for c in audit.claims
    ]
    body = table(("Claim", "Verdict", "Claimed", "Found", ""), rows)
    return section("Claims", f'<div class="words">{body}</div>')


def _findings(audit: Audit) -> str:
    if not audit.findings:
        return ""
    rows = [
        (f"<code>{_name(place(f))}</code>", _name(f.code), f.kind, _shown(f.message))
        for f in audit.findings
    ]
    body = table(("Where", "What", "Seen", ""), rows)
    note = '<p class="note">A static finding is a suspicion, never a verdict.</p>'
    return section("Findings", f'<div class="words">{body}</div>', note)


def _settings(audit: Audit) -> str:
    settings = audit.submission.settings
    if not settings:
        return ""
    text = "\n".join(f"{clean(k)}={clean(v)}" for k, v in sorted(settings.items()))
    source = _shown(audit.submission.settings_from)
    return (
        f"<details><summary>Settings of the headline run, from {source}</summary>"
        f"<pre>{escape(text)}</pre></details>"
    )


def summary(rows: list[tuple[str, ...]]) -> str:
    """A batch as one page; the first row is the head."""
    head, *body = rows
    cells = [tuple(_shown(cell) for cell in row) for row in body]
    opening = _frame("Audits", f"{len(body)} submissions", "<h1><b>Audits</b></h1>")
    return f'{opening}<section class="words">{table(head, cells)}</section></body></html>\n'
