"""From evidence to verdicts: holds, violated (with a witness), not exercised (and why).

A verdict needs the headline: the recorded sum equals the printed number to 1e-5 and at least 99 %
of the contributions have a position. A violation needs the link between the number and the
accumulator only; what moved has moved, whatever else was not seen.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from underpar.audit import compare, headline
from underpar.audit.evidence import TOLERANCE, Alphabet, Evidence, broken, trained
from underpar.audit.facts import Condition, ConditionName, Finding, Submission

RECORDED = 0.99
MANY = 0.01
NAMES: tuple[ConditionName, ...] = ("causal", "normalized", "score_first", "single_pass")


def conditions(seen: Evidence) -> list[Condition]:
    """The verdicts on the four conditions, in their order."""
    if seen.base is None:
        return [Condition(name, "not_exercised", "", {}, seen.why) for name in NAMES]
    gap = _gap(seen)
    found = [_causal(seen, gap), _normalized(seen, gap), _score_first(seen, gap)]
    found.append(_single(seen, gap))
    if seen.instead:
        found = [replace(c, why=f"{c.why}; {seen.instead}") for c in found]
    return found


def _gap(seen: Evidence) -> str:
    """What is missing for a condition to hold; empty if nothing is."""
    base = seen.base
    assert base is not None
    if not base.exact:
        return (
            f"the recorded sum differs from the reported {base.name} {base.value:.6f} by "
            f"{base.error:.1e} of it"
        )
    if base.scores.known < RECORDED:
        return f"only {base.scores.known:.1%} of the contributions have a known position"
    return ""


def _evidence(seen: Evidence, **more: Any) -> dict[str, Any]:
    base = seen.base
    assert base is not None
    return {
        "reported": {base.name: base.value, "line": base.text},
        "contributions": len(base.scores.pos),
        "sum_error": base.error,
        "flips": seen.flips,
        "noise": seen.noise,
        "world": seen.world,
        **({"assumed": seen.assumed or seen.instead} if seen.assumed or seen.instead else {}),
        **more,
    }


def _held(name: ConditionName, seen: Evidence, gap: str, why: str, **more: Any) -> Condition:
    if gap:
        return Condition(name, "not_exercised", "", _evidence(seen, **more), gap)
    return Condition(name, "holds", "", _evidence(seen, **more), why)


def _said(moved: compare.Moved) -> str:
    return (
        f"flipping token {moved.flipped} moved the score of token {moved.position} by "
        f"{moved.nats:.2g} nats (line {moved.line})"
    )


def _moved(seen: Evidence) -> compare.Moved | None:
    return max(seen.moved, key=lambda m: m.nats, default=None)


def _untested(seen: Evidence) -> str:
    return "" if seen.tested else "no changed run reached the same score"


def _causal(seen: Evidence, gap: str) -> Condition:
    found = _moved(seen)
    if found:
        return Condition(
            "causal", "violated", _said(found), _evidence(seen, moved=found.count),
            f"{found.count} of {found.out_of} scores committed earlier moved",
        )  # fmt: skip
    if seen.own:
        mine = seen.own[0]
        return Condition(
            "causal", "violated",
            f"flipping token {mine.position} changed the distribution that scored it "
            f"(line {mine.line})",
            _evidence(seen, own=mine.change), "the distribution depends on the token it scores",
        )  # fmt: skip
    bad = next((a for a in seen.alphabets if broken(a)), None)
    if bad:
        why = "scores follow no distribution fixed before the token"
        return Condition("causal", "not_exercised", "", _evidence(seen), why)
    why = f"{seen.tested} earlier scores did not move under {len(seen.flips)} changes"
    return _held("causal", seen, gap or _untested(seen), why)


def _sum_said(found: Alphabet) -> str:
    part = "all" if found.complete else str(len(found.tokens))
    text = f"the probabilities of {part} tokens at position {found.position} add up to "
    text += f"{found.total:.4f} (line {found.line})"
    if found.unscored:
        text += f"; the model behind them leaves {found.rest:.4f} to the {found.unscored} "
        text += "tokens without bytes, which are not scored"
    return text


def _normalized(seen: Evidence, gap: str) -> Condition:
    for found in seen.alphabets:
        more = {"position": found.position, "sum": found.total, "tokens": len(found.tokens)}
        if broken(found):
            return Condition(
                "normalized", "violated", _sum_said(found),
                _evidence(seen, **more), "everything scored before was the same in all runs",
            )  # fmt: skip
    full = [a for a in seen.alphabets if a.complete and a.prefix_equal and a.doubt < 2 * TOLERANCE]
    if full:
        why = f"all {len(full[0].tokens)} tokens add up to {full[0].total:.6f}"
        return _held("normalized", seen, gap, why, position=full[0].position, sum=full[0].total)
    assert seen.base is not None
    if seen.pure >= 1 - 1e-9:
        why = "every score is -log softmax of one recorded row over the vocabulary"
        return _held("normalized", seen, gap, why, pure=seen.pure)
    if seen.moved or seen.own:
        why = "scores depend on tokens scored later, so a sum over tokens means nothing"
    else:
        why = f"{1 - seen.pure:.1%} of the scores are mixtures whose alphabet could not be summed"
    return Condition("normalized", "not_exercised", "", _evidence(seen, pure=seen.pure), gap or why)


def _trained_before(seen: Evidence) -> tuple[int, int, int] | None:
    """A position trained on before its first score: (position, step's line, score's line)."""
    assert seen.base is not None
    early = trained(seen)
    if early is None:
        return None
    scores, trace = seen.base.scores, seen.trace
    position = int(early[-1])
    step = int(np.flatnonzero(trace.t_pos == position)[0])
    line = int(scores.line[np.flatnonzero(scores.pos == position)[0]])
    return position, int(trace.t_line[step]), line


def _score_first(seen: Evidence, gap: str) -> Condition:
    used = _trained_before(seen)
    found = _moved(seen)
    if seen.own:
        mine = seen.own[0]
        text = (
            f"flipping token {mine.position} changed the distribution that scored it "
            f"(line {mine.line})"
        )
        if used:
            text += f"; token {used[0]} was trained on (line {used[1]}) before its score"
        return Condition("score_first", "violated", text, _evidence(seen), "the state had seen it")
    if used and found:
        text = f"token {used[0]} was trained on (line {used[1]}) before its score "
        text += f"(line {used[2]}); {_said(found)}"
        return Condition("score_first", "violated", text, _evidence(seen), "confirmed by the flip")
    bad = next((a for a in seen.alphabets if broken(a)), None)
    if bad or found:
        why = "violations of other conditions leave this one open"
        return Condition("score_first", "not_exercised", "", _evidence(seen), why)
    why = "the distribution at changed tokens did not depend on them"
    if used:
        why += "; training before scoring was seen but had no effect on any score"
    if seen.pure < 1 - 1e-9 and not any(a.complete for a in seen.alphabets):
        return Condition("score_first", "not_exercised", "", _evidence(seen), gap or "mixtures")
    return _held("score_first", seen, gap or _untested(seen), why)


def _single(seen: Evidence, gap: str) -> Condition:
    assert seen.base is not None
    found = _moved(seen)
    share, body, most = compare.rescored(seen.base.scores, len(seen.trace.tokens))
    more = {"rescored": share, "rescored_body": body, "most": most}
    if found:
        why = "a contribution depends on a token scored later"
        return Condition("single_pass", "violated", _said(found), _evidence(seen, **more), why)
    if body > MANY:
        position = _twice(seen)
        text = f"token {position} contributes {_times(seen, position)} times"
        why = f"{body:.1%} of the positions contribute more than once, up to {most} times"
        return Condition("single_pass", "violated", text, _evidence(seen, **more), why)
    why = "each position contributes once and earlier contributions do not move"
    return _held("single_pass", seen, gap or _untested(seen), why, **more)


def _times(seen: Evidence, position: int) -> int:
    assert seen.base is not None
    return int((seen.base.scores.pos == position).sum())


def _twice(seen: Evidence) -> int:
    assert seen.base is not None
    pos = seen.base.scores.pos[seen.base.scores.pos >= 0]
    places, counts = np.unique(pos, return_counts=True)
    return int(places[np.argmax(counts)])


def findings(seen: Evidence, sub: Submission) -> list[Finding]:
    """What the runs showed beside the four verdicts: rescoring, coverage, bytes, warm-ups."""
    out: list[Finding] = []
    base = seen.base
    if base is None:
        return out

    def add(code: str, message: str, line: int | None) -> None:
        out.append(Finding(code, message, sub.script.name, line or None, "dynamic"))

    last = int(base.scores.line[-1]) if len(base.scores.line) else None
    share, _, most = compare.rescored(base.scores, len(seen.trace.tokens))
    if share > 0:
        text = f"{share:.1%} of the positions contribute more than once (up to {most} times)"
        add("rescored_positions", text + ", numerator and denominator alike", last)
    n = len(seen.trace.tokens)
    covered = len(np.unique(base.scores.pos[base.scores.pos >= 0])) / max(n - 1, 1)
    if covered < 0.9:
        add("partial_val", f"the score covers {covered:.0%} of the validation tokens", last)
    used = _trained_before(seen)
    if used and not seen.moved and not seen.own:
        text = f"token {used[0]} is trained on before its score, without effect on any score"
        add("harmless_warm_up", text, used[1])
    wrong = byte_error(seen)
    if wrong:
        add("byte_count", wrong, None)
    return out


def byte_error(seen: Evidence) -> str:
    """How the score's denominator differs from the bytes of the text; empty if it agrees."""
    base, trace = seen.base, seen.trace
    assert base is not None
    true = headline.true_bytes(trace.tokens, base.scores.pos, seen.vocab)
    if not base.bytes or not true or base.scores.known < 1:
        return ""
    ratio = base.bytes / true
    if abs(ratio - 1) <= 1e-4:
        return ""
    text = (
        f"the score divides by {base.bytes:,.0f} bytes, and the text has {true:,.0f} ({ratio:.3f})"
    )
    wrong = _miscounted(seen)
    if wrong is None:
        return text
    position, got, want = wrong
    return f"{text}: token {position} is counted as {got:g} and is {want}"


def _miscounted(seen: Evidence) -> tuple[int, float, int] | None:
    """A position that the denominator counts wrongly: (position, bytes counted, bytes it is)."""
    base, trace = seen.base, seen.trace
    assert base is not None
    want = headline.byte_lengths(trace.tokens, seen.vocab)
    groups = np.unique(trace.c_group[trace.c_group >> headline.CHANNEL == headline.COUNTED])
    for group in groups[::-1]:
        rows = trace.c_group == group
        if abs(trace.c_nll[rows].sum() - base.bytes) < 0.5:
            got, places = trace.c_nll[rows], trace.c_pos[rows]
            off = np.flatnonzero((places >= 0) & (np.abs(got - want[places]) > 1e-6))
            if len(off):
                return int(places[off[0]]), float(got[off[0]]), int(want[places[off[0]]])
    return None
