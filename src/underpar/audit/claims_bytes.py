"""The denominator behind a score, computed from what a log prints anyway.

bpb = loss / ln 2 * tokens / bytes, so three numbers of one line give the fourth. The text of the
official validation set is known, whatever the tokenizer: 151.08 million bytes (its first 50,000
documents). The cut to whole windows moves that by less than 0.1 %; a wrong byte table moves it by
4 to 20 %.
"""

from __future__ import annotations

import math

from underpar.audit.facts import Claim
from underpar.audit.logs import Log, Reported

#: UTF-8 bytes of the official validation text.
TEXT_BYTES = 151_080_000

#: Predicted tokens of the published exports of that text.
EXPORTS = (62_021_632, 45_508_608, 40_540_160, 47_851_520, 151_076_864)

#: Relative differences: rounding and tail cuts stay below the first, no wrong table does.
CLOSE, WRONG = 0.01, 0.03


def implied_bytes(score: Reported, tokens: int) -> float:
    """Bytes that `tokens` targets must have for this loss (nats per token) to be this bpb."""
    return score.loss / math.log(2) * tokens / score.bpb


def _implied(log: Log) -> list[tuple[Reported, float]]:
    """Exact enough pairs only: a score near 0 with four decimals says nothing."""
    if not log.tokens:
        return []
    usable = [s for s in log.scores if s.bpb > 0.01 and s.loss > 0.01]
    return [(score, implied_bytes(score, log.tokens)) for score in usable]


def check_bytes(logs: tuple[Log, ...], everything: tuple[Log, ...] = ()) -> Claim:
    """Is the byte count behind the last score that of the validation text?

    logs: of the headline; everything: all logs, where a score of the same text may fit.
    """
    claimed = f"{TEXT_BYTES / 1e6:.2f} M bytes of text"
    for log in logs:
        pairs = _implied(log)
        if not pairs:
            continue
        score, count = pairs[-1]
        off = count / TEXT_BYTES - 1
        shown = f"{count / 1e6:.2f} M bytes ({off:+.2%}) from '{score.label}' in {log.name}"
        if abs(off) <= CLOSE:
            return Claim("bytes", "holds", claimed, shown)
        others = [pair for other in (log, *everything) for pair in _implied(other)]
        if any(abs(other / TEXT_BYTES - 1) <= CLOSE for _, other in others):
            note = "other lines fit: loss and bpb of this one are not of one model"
            return Claim("bytes", "unknown", claimed, shown, note)
        if not is_export(log.tokens):
            note = f"{log.tokens:,} tokens: not a published export, so the text is not known"
            return Claim("bytes", "unknown", claimed, shown, note)
        if abs(off) < WRONG:
            return Claim("bytes", "unknown", claimed, shown, "a small difference")
        return Claim("bytes", "violated", claimed, shown, f"bpb is off by {off:+.1%}")
    return Claim("bytes", "unknown", claimed, "", "no log prints loss, bpb and tokens")


def check_coverage(logs: tuple[Log, ...]) -> Claim:
    """Was the whole validation set there to be scored? (Whether it was is for the probe to say.)"""
    counts = [log.tokens for log in logs if log.tokens]
    if not counts:
        return Claim("coverage", "unknown", "", "", "no log counts the validation tokens")
    shown = f"{counts[0]:,} validation tokens"
    covered = [count for log in logs for _, count in _implied(log)]
    if is_export(counts[0]):
        return Claim("coverage", "holds", "all of the validation set", shown)
    if covered and abs(covered[-1] / TEXT_BYTES - 1) <= CLOSE:
        return Claim("coverage", "holds", "all of the validation set", shown, "by its bytes")
    return Claim("coverage", "unknown", "all of the validation set", shown, "unknown export")


def is_export(tokens: int | None) -> bool:
    return any(abs((tokens or 0) / known - 1) < 0.001 for known in EXPORTS)
