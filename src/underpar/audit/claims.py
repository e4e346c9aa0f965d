"""What a submission says about itself against its own evidence.

Conservative on purpose: `violated` needs figures that contradict the rule or each other even when
read in the author's favour; what is only unusual stays `unknown` with a note.
"""

from __future__ import annotations

import ast
import contextlib
import lzma
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from underpar.audit.claims_bytes import check_bytes, check_coverage
from underpar.audit.claims_seeds import check_consistency, check_seeds, check_significance
from underpar.audit.facts import Claim, Submission
from underpar.audit.logs import Log, is_log, read_log
from underpar.audit.settings import headline_bpb, metadata
from underpar.bits import BUDGET_BYTES

SECONDS = 600.0

#: A run is stopped after the step that crosses the limit: one part in a hundred is no offence.
SLACK = 1.01

#: Logs whose last scores are this close to the headline (bpb) are runs of its configuration.
NEAR = 0.005

#: Of the packed size of a script: what remains where a packer shortens the names as well.
SHORT_NAMES = 0.75

_NATIVE = frozenset((".c", ".cc", ".cpp", ".cu", ".h", ".py", ".lzma", ".so"))
_SIZE_KEY = re.compile(r"^(artifact_bytes(_max)?|bytes_total|artifact_size_bytes|total_bytes)$")
_EVAL_KEY = re.compile(r"^eval(uation)?_?(ops|time|total)?_?(seconds|s|time_ms|ms)(_max)?$")
_TRAIN_KEY = re.compile(r"^train(ing)?_time_(seconds|s|ms)(_max)?$")


@dataclass(frozen=True)
class Papers:
    """logs: of the headline configuration, one per run. everything: all logs."""

    sub: Submission
    meta: dict[str, Any]
    logs: tuple[Log, ...]
    everything: tuple[Log, ...]

    @property
    def is_reference_machine(self) -> bool:
        """Does it say that it ran on the machine that the time limits speak of?"""
        said = " ".join(str(self.meta.get(key, "")) for key in ("hardware", "gpu", "platform"))
        if not said.strip():
            said = " ".join(t for n, t in self.sub.documents.items() if n.lower() == "readme.md")
        worlds = {log.world for log in self.logs if log.world}
        if worlds - {8}:
            return False
        return bool(re.search(r"8\s*[x×]\s*[^,;]{0,12}H100", said, re.IGNORECASE))

    @property
    def is_timed(self) -> bool:
        track = f"{self.meta.get('track', '')} {self.sub.root}".lower()
        return "unlimited" not in track and not re.search(r"non[-_]record", track)


def check(sub: Submission) -> list[Claim]:
    """One claim each: size, train_time, eval_time, bytes, coverage, seeds, significance,
    consistency."""
    papers = _papers(sub)
    size = _size(papers)
    train = _time(papers, "train_time", _TRAIN_KEY, [log.train_seconds for log in papers.logs])
    times = [log.eval_seconds for log in papers.logs]
    scoring = _time(papers, "eval_time", _EVAL_KEY, times)
    scores = check_bytes(papers.logs, papers.everything)
    seeds = check_seeds(papers.meta, papers.everything)
    significance = check_significance(papers.meta, papers.logs)
    said = {"size": size.verdict, "train_time": train.verdict, "eval_time": scoring.verdict}
    consistency = check_consistency(papers.meta, papers.everything, sub, said)
    coverage = check_coverage(papers.logs)
    return [size, train, scoring, scores, coverage, seeds, significance, consistency]


def _papers(sub: Submission) -> Papers:
    everything = tuple(
        read_log(name, text, sub.source)
        for name, text in sorted(sub.documents.items())
        if is_log(name, text)
    )
    wanted = headline_bpb(sub.documents)
    near = tuple(
        log
        for log in everything
        if wanted is None or any(abs(score.bpb - wanted) < NEAR for score in log.scores[-3:])
    )
    return Papers(sub, metadata(sub.documents), near or everything[:1], everything)


def _numbers(value: Any, pattern: re.Pattern[str]) -> Iterator[float]:
    """Numbers anywhere in the metadata whose key matches; milliseconds as seconds."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if pattern.match(str(key)):
                found = inner if isinstance(inner, list) else [inner]
                for item in found:
                    if isinstance(item, int | float) and not isinstance(item, bool):
                        yield item / 1000 if re.search(r"_ms(_|$)", str(key)) else float(item)
            yield from _numbers(inner, pattern)
    elif isinstance(value, list):
        for inner in value:
            yield from _numbers(inner, pattern)


def code_files(sub: Submission) -> dict[str, int]:
    """Shipped files that the script runs: itself, what it imports or names, what starts it."""
    script = sub.script.relative_to(sub.root).as_posix()
    used = {script: sub.files.get(script, 0)}
    for name, size in sub.files.items():
        path = PurePosixPath(name)
        if name == script or path.suffix not in _NATIVE or path.parent.name in ("tests", "test"):
            continue
        imported = path.suffix == ".py" and re.search(
            rf"^\s*(from|import)\s+{re.escape(path.stem)}\b", sub.source, re.MULTILINE
        )
        if imported or re.search(rf"[\"'/]{re.escape(path.name)}[\"']", sub.source):
            used[name] = size
    starters = [note.split(" starts ")[0] for note in sub.notes if " starts " in note]
    used.update({name: sub.files[name] for name in starters if name in sub.files})
    return used


def packed_bytes(text: str) -> int:
    """The least that a script costs: no comments, short names, LZMA, base85. An estimate."""
    with contextlib.suppress(SyntaxError, ValueError, RecursionError):
        text = ast.unparse(ast.parse(text))
    return math.ceil(len(lzma.compress(text.encode(), preset=9)) * 5 / 4 * SHORT_NAMES)


def _size(papers: Papers) -> Claim:
    claimed = [n for n in _numbers(papers.meta, _SIZE_KEY) if n > 1e5]
    said = f"{int(max(claimed)):,} bytes" if claimed else ""
    files = code_files(papers.sub)
    code = sum(files.values())
    model = max(_best_per_seed(papers.logs, [_payload(log) for log in papers.logs]), default=None)
    if model is None:
        if claimed and min(claimed) > BUDGET_BYTES:
            return Claim("size", "violated", said, said, "by its own metadata")
        return Claim("size", "unknown", said, f"code {code:,} bytes", "no log gives the model size")
    total = model + code
    parts = f"{total:,.0f} bytes = {model:,.0f} model + {code:,} code ({', '.join(sorted(files))})"
    if total <= BUDGET_BYTES:
        return Claim("size", "holds", said, parts)
    least = model + min(code, packed_bytes(papers.sub.source))
    if least > BUDGET_BYTES:
        return Claim("size", "violated", said, parts, f"{least:,.0f} even with the code packed")
    note = f"over by {total - BUDGET_BYTES:,.0f} as shipped; {least:,.0f} with the code packed"
    return Claim("size", "unknown", said, parts, note)


def _best_per_seed(logs: tuple[Log, ...], values: Sequence[float | None]) -> list[float]:
    """The smallest value of each seed: of several attempts the author may have taken any."""
    best: dict[str, float] = {}
    for log, value in zip(logs, values):
        if value:
            best[log.seed] = min(value, best.get(log.seed, value))
    return list(best.values())


def _payload(log: Log) -> int | None:
    """Compressed model, with whatever else the log counts beside the code."""
    if log.model_bytes is None:
        return None
    extra = 0
    if log.total_bytes and log.code_bytes:
        extra = max(0, log.total_bytes - log.code_bytes - log.model_bytes)
    return log.model_bytes + extra


def _time(papers: Papers, name: str, keys: re.Pattern[str], seen: list[float | None]) -> Claim:
    claimed = list(_numbers(papers.meta, keys))
    measured = _best_per_seed(papers.logs, seen)
    said = f"{max(claimed):.1f} s" if claimed else ""
    shown = f"{max(measured):.1f} s" if measured else ""
    longest = max([*claimed, *measured], default=None)
    if longest is None:
        return Claim(name, "unknown", said, shown, "no time is given")
    if longest <= SECONDS * SLACK:
        return Claim(name, "holds" if measured else "unknown", said, shown)
    if not papers.is_timed:
        return Claim(name, "unknown", said, shown, "the track has no time limit")
    if not papers.is_reference_machine:
        return Claim(name, "unknown", said, shown, "over 600 s, but not said to be on 8xH100")
    return Claim(name, "violated", said, shown, f"limit {SECONDS:.0f} s")
