"""The audit as a review to paste into a pull request."""

from __future__ import annotations

from underpar.audit.facts import Condition
from underpar.audit.review import DEMANDS, Audit, place
from underpar.audit.words import clean, code, escaped

MOST_FINDINGS = 40


def markdown(audit: Audit, head: str = "") -> str:
    """GitHub Markdown. head: the commit that was audited, if known.

    Names and messages that come from the submission are escaped; they cannot make markup,
    mentions or links.
    """
    parts = [
        f"## Audit: {audit.verdict}",
        f"{_head(audit, head)}\n\n**{escaped(audit.recommendation)}**",
        _conditions(audit),
        _claims(audit),
        _findings(audit),
        f"Smoke: {escaped(audit.smoke)}.",
        "\n".join(["Caveats:", *(f"- {escaped(c, 1000)}" for c in audit.cautions)])
        if audit.cautions
        else "",
        "Again: `underpar audit PATH`. A condition is judged by running the code, never by "
        "reading it; findings marked static are suspicions.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(audit: Audit, head: str) -> str:
    words = [f"Script {code(audit.script)}"]
    if head:
        words.append(f"at {code(head, 40)}")
    if audit.submission.packed:
        words.append("(packed; lines are those of the decoded source)")
    settings = audit.submission.settings
    if settings:
        few = " ".join(f"{k}={v}" for k, v in sorted(settings.items())[:12])
        more = f" and {len(settings) - 12} more" if len(settings) > 12 else ""
        words.append(f"with {code(few, 400)}{more}, from {code(audit.submission.settings_from)}")
    return " ".join(words)


def _conditions(audit: Audit) -> str:
    rows = ["| condition | verdict | evidence |", "|---|---|---|"]
    rows += [_row(condition) for condition in audit.conditions]
    return "\n".join(rows)


def _row(condition: Condition) -> str:
    verdict = condition.verdict.replace("_", " ")
    verdict = f"**{verdict}**" if condition.verdict == "violated" else verdict
    violated = condition.verdict == "violated"
    told = condition.witness if violated else condition.why or condition.witness
    return f"| {condition.name}: {DEMANDS[condition.name]} | {verdict} | {escaped(told, 1000)} |"


def _claims(audit: Audit) -> str:
    if not audit.claims:
        return ""
    rows = ["| claim | verdict | claimed | found | |", "|---|---|---|---|---|"]
    for claim in audit.claims:
        texts = (claim.name, claim.verdict, claim.claimed, claim.measured, claim.note)
        rows.append(f"| {' | '.join(escaped(text) for text in texts)} |")
    return "\n".join(rows)


def _findings(audit: Audit) -> str:
    if not audit.findings:
        return ""
    lines = ["Findings:"]
    for finding in audit.findings[:MOST_FINDINGS]:
        name = f"{code(finding.code)} ({finding.kind})"
        lines.append(f"- {code(place(finding))}: {name} {escaped(finding.message)}")
    if len(audit.findings) > MOST_FINDINGS:
        lines.append(f"- and {len(audit.findings) - MOST_FINDINGS} more")
    return "\n".join(lines)


def summary(rows: list[tuple[str, ...]]) -> str:
    """A batch as a Markdown table; the first row is the head."""
    head, *body = rows
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for name, *cells in body:
        lines.append(f"| {code(name)} | {' | '.join(clean(cell) for cell in cells)} |")
    return "\n".join(lines) + "\n"
