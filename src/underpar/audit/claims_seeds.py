"""Seeds, their spread, and whether README, metadata and logs tell one story."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Mapping
from typing import Any

from underpar.audit.claims_bytes import TEXT_BYTES, is_export
from underpar.audit.facts import Claim, Submission
from underpar.audit.logs import Log
from underpar.report.stats import ALPHA, BPB, DELTA, NATS, Sample, Text
from underpar.report.student import tail

_BASE_KEY = re.compile(r"^(comparison_baseline|previous_sota|baseline|prev\w*|sota)_?(val_)?bpb$")
_SEED_BPB = ("val_bpb", "bpb", "mean_bpb", "sliding_window_bpb")
_FLAGS = {
    "artifact_under_16mb": "size",
    "train_under_600s": "train_time",
    "training_under_600s": "train_time",
    "eval_under_600s": "eval_time",
}

#: Two decimals fewer than logs print.
ROUNDING = 2e-4

#: bpb. Smaller differences come from evaluating again; they are noted.
CONTRADICTION = 2e-3


def seed_scores(meta: Mapping[str, Any]) -> dict[str, float]:
    """seed -> bpb as the metadata lists them; {} if it does not."""
    for key in ("seed_results", "seeds", "results", "val_bpb_by_seed", "per_seed"):
        found = meta.get(key)
        if isinstance(found, dict) and isinstance(found.get("seeds"), dict):
            found = found["seeds"]
        if not isinstance(found, dict):
            continue
        out: dict[str, float] = {}
        for seed, value in found.items():
            if isinstance(value, dict):
                value = next((value[k] for k in _SEED_BPB if k in value), None)
            digits = re.search(r"\d+", str(seed))
            if digits and isinstance(value, int | float) and not isinstance(value, bool):
                out[digits[0]] = float(value)
        if out:
            return out
    return {}


def check_seeds(meta: Mapping[str, Any], logs: tuple[Log, ...]) -> Claim:
    """Three runs of one configuration, each with its log."""
    listed = seed_scores(meta)
    bare = meta.get("seeds")
    count = len(listed) or (len(bare) if isinstance(bare, list) else 0)
    logged = {log.seed for log in logs if log.seed and log.scores}
    said = f"{count} seeds" if count else ""
    shown = f"{len(logged)} logs with scores: {', '.join(sorted(logged)) or 'none'}"
    flags = meta.get("compliance")
    promised = isinstance(flags, dict) and flags.get("three_seeds") is True
    if len(logged) >= 3:
        return Claim("seeds", "holds", said, shown)
    if promised and count and count < 3:
        return Claim("seeds", "violated", "three_seeds: true", said, "its own list is shorter")
    return Claim("seeds", "unknown", said, shown, "three runs are asked of a record")


def check_significance(meta: Mapping[str, Any], logs: tuple[Log, ...]) -> Claim:
    """Is the mean over seeds 0.005 nats better than what it names, at p < 0.01? One-sample t."""
    scores = list(seed_scores(meta).values())
    scores = scores or [log.final.bpb for log in logs if log.final]
    if len(scores) < 2:
        return Claim("significance", "unknown", "", "", "one run has no spread")
    sample = Sample(tuple(scores), BPB)
    spread = sample.sd or 0.0
    shown = f"mean {sample.mean:.5f} bpb, sd {spread:.5f} (n - 1), {sample.n} runs"
    base = next((v for k, v in meta.items() if _BASE_KEY.match(k)), None)
    tokens = next((log.tokens for log in logs if is_export(log.tokens)), None)
    if not isinstance(base, int | float) or not tokens or not spread:
        return Claim("significance", "unknown", "", shown, "nothing to compare with")
    delta = Text(tokens, TEXT_BYTES).convert(DELTA, NATS, BPB)
    t = (base - sample.mean - delta) / (spread / math.sqrt(sample.n))
    p = tail(t, sample.n - 1)
    said = f"better than {base} bpb by {DELTA} nats"
    return Claim("significance", "holds" if p < ALPHA else "unknown", said, f"{shown}, p {p:.2g}")


def check_consistency(
    meta: Mapping[str, Any], logs: tuple[Log, ...], sub: Submission, verdicts: Mapping[str, str]
) -> Claim:
    """Contradictions between metadata, logs and README; notes do not make a violation."""
    apart = _seed_against_log(meta, logs)
    contradictions = [text for text, gap in apart if gap > CONTRADICTION]
    contradictions += [*_mean(meta), *_flags(meta, verdicts)]
    notes = [text for text, gap in apart if gap <= CONTRADICTION] + _notes(meta, logs, sub)
    said = f"{len(logs)} logs, {'metadata' if meta else 'no metadata'}"
    if contradictions:
        text = "; ".join(contradictions[:6])
        return Claim("consistency", "violated", said, text, "; ".join(notes[:4]))
    if not meta or not logs:
        return Claim("consistency", "unknown", said, "", "; ".join(notes[:4]))
    return Claim("consistency", "holds", said, "no contradiction found", "; ".join(notes[:4]))


def _seed_against_log(meta: Mapping[str, Any], logs: tuple[Log, ...]) -> list[tuple[str, float]]:
    """A seed whose own log shows scores, none of them the one that the metadata gives."""
    out: list[tuple[str, float]] = []
    for seed, bpb in seed_scores(meta).items():
        own = [log for log in logs if log.seed == seed]
        seen = [score.bpb for log in own for score in log.scores]
        if seen and all(abs(bpb - value) > ROUNDING for value in seen):
            nearest = min(seen, key=lambda value: abs(value - bpb))
            gap = abs(nearest - bpb)
            if gap < 0.05:  # farther off: a score of another kind, not printed
                text = f"seed {seed}: metadata {bpb}, nearest in {own[0].name} {nearest}"
                out.append((text, gap))
    return out


def _mean(meta: Mapping[str, Any]) -> list[str]:
    """A headline outside of what its own seeds span."""
    scores = list(seed_scores(meta).values())
    said = meta.get("val_bpb")
    if len(scores) < 2 or not isinstance(said, int | float):
        return []
    low, high = min(scores) - ROUNDING, max(scores) + ROUNDING
    if low <= said <= high:
        return []
    return [f"val_bpb {said} is outside of its seeds, {min(scores)} to {max(scores)}"]


def _flags(meta: Mapping[str, Any], verdicts: Mapping[str, str]) -> list[str]:
    said = meta.get("compliance")
    if not isinstance(said, dict):
        return []
    return [
        f"{flag}: true, but {name} is violated"
        for flag, name in _FLAGS.items()
        if said.get(flag) is True and verdicts.get(name) == "violated"
    ]


def _notes(meta: Mapping[str, Any], logs: tuple[Log, ...], sub: Submission) -> list[str]:
    out: list[str] = []
    scores = list(seed_scores(meta).values())
    said, std = meta.get("val_bpb"), meta.get("val_bpb_std")
    if len(scores) > 1 and isinstance(std, int | float):
        forms = (statistics.stdev(scores), statistics.pstdev(scores))
        if all(abs(std - form) > 0.1 * form + 5e-6 for form in forms):
            out.append(f"val_bpb_std {std}, from its seeds {forms[0]:.5f}")
    if len(scores) > 1 and isinstance(said, int | float):
        mean = statistics.fmean(scores)
        if abs(said - mean) > ROUNDING:
            out.append(f"val_bpb {said} is not the mean of its seeds, {mean:.5f}")
    readme = next((t for n, t in sub.documents.items() if n.lower() == "readme.md"), "")
    if readme and isinstance(said, int | float) and f"{said:.3f}" not in readme:
        shown = f"{math.floor(said * 1000) / 1000:.3f}"
        if shown not in readme:
            out.append(f"README.md does not show {said:.4f}")
    shards = {log.train_shards for log in logs if log.train_shards}
    if shards - {80}:
        out.append(f"train_shards {sorted(shards)}: the published set has 80")
    return [*out, *(note for note in sub.notes if " says " in note)]
