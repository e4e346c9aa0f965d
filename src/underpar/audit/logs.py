"""What a training log says: scores with their labels, sizes, times, counts of tokens."""

from __future__ import annotations

import re
from dataclasses import dataclass

_NUMBER = r"([-+]?\d[\d,]*\.?\d*(?:[eE][-+]?\d+)?)"
_SCORE = re.compile(
    r"^(?P<label>[^\n]{0,80}?)\s*val_loss[:=]\s*" + _NUMBER + r"\s*val_bpb[:=]\s*" + _NUMBER,
    re.MULTILINE,
)
_STEP = re.compile(r"^\s*(?:step\s*[:=]?\s*)?\d+\s*/\s*\d+\b")
_TRAIN_MS = re.compile(r"train_time:\s*" + _NUMBER + r"\s*(ms|s|m)\b")
_STOP_MS = re.compile(r"stopping_early[^\n]*train_time:\s*" + _NUMBER + r"\s*(ms|s|m)\b")
_EVAL_MS = re.compile(r"\b(?:eval_time|time):\s*" + _NUMBER + r"\s*(ms|s)\b")
_TOTAL_EVAL = re.compile(r"^total_eval_time:\s*" + _NUMBER + r"\s*(ms|s)\b", re.MULTILINE)
_CODE = re.compile(r"^Code size[^:\n]*:\s*" + _NUMBER + r"\s*bytes", re.MULTILINE)
_MODEL = re.compile(r"^Serialized model[^:\n]+:\s*" + _NUMBER + r"\s*bytes", re.MULTILINE)
_TOTAL = re.compile(r"^Total submission size[^:\n]+:\s*" + _NUMBER + r"\s*bytes", re.MULTILINE)
_PLAIN_TOTAL = re.compile(r"^Total submission size:\s*" + _NUMBER + r"\s*bytes", re.MULTILINE)
_TOKENS = re.compile(
    r"(?:\bval_tokens|[Vv]alidation tokens|val_loader:[^\n]*tokens)\s*[:=]\s*" + _NUMBER
)
_SHARDS = re.compile(r"\btrain_shards:\s*(\d+)")
_WORLD = re.compile(r"\bworld_size\s*[:=]\s*(\d+)")
_SEED = re.compile(r"(?:^|[\s/_-])seed[\s:=_-]*(\d+)\b", re.IGNORECASE | re.MULTILINE)
_UNIT = {"ms": 1e-3, "s": 1.0, "m": 60.0}


@dataclass(frozen=True)
class Reported:
    """A pair of numbers that one line of the log prints together. seconds: 0 if not printed."""

    label: str
    loss: float
    bpb: float
    seconds: float


@dataclass(frozen=True)
class Log:
    """The facts of one log; None where it says nothing."""

    name: str
    seed: str
    scores: tuple[Reported, ...]
    code_bytes: int | None
    model_bytes: int | None
    total_bytes: int | None
    train_seconds: float | None
    eval_seconds: float | None
    tokens: int | None
    train_shards: int | None
    world: int | None

    @property
    def final(self) -> Reported | None:
        return self.scores[-1] if self.scores else None


def is_log(name: str, text: str) -> bool:
    lowered = name.lower()
    if not lowered.endswith((".log", ".txt", ".out")) or "requirements" in lowered:
        return False
    return "bpb" in text


def read_log(name: str, text: str, source: str = "") -> Log:
    """The facts of a log; lines of `source` that a log repeats are not read as output."""
    text = without_source(text, source)
    scores = tuple(
        Reported(m["label"].strip(" :="), log_number(m[2]), log_number(m[3]), _seconds_of(text, m))
        for m in _SCORE.finditer(text)
        if not _STEP.match(m["label"])
    )
    total = last(_TOTAL, text) or last(_PLAIN_TOTAL, text)
    total_eval = _TOTAL_EVAL.search(text)
    final_seconds = scores[-1].seconds if scores else 0.0
    shards = _SHARDS.search(text)
    return Log(
        name=name,
        seed=_seed(name, text),
        scores=scores,
        code_bytes=last(_CODE, text),
        model_bytes=last(_MODEL, text),
        total_bytes=total,
        train_seconds=_train_seconds(text),
        eval_seconds=_seconds(total_eval) if total_eval else final_seconds or None,
        tokens=last(_TOKENS, text),
        train_shards=int(shards[1]) if shards else None,
        world=last(_WORLD, text),
    )


def without_source(text: str, source: str) -> str:
    """`text` less the lines that are lines of `source`: many logs begin with the whole script."""
    if not source:
        return text
    known = {line.strip() for line in source.split("\n")}
    return "\n".join(line for line in text.split("\n") if line.strip() not in known)


def log_number(text: str) -> float:
    return float(text.replace(",", ""))


def last(pattern: re.Pattern[str], text: str) -> int | None:
    found = pattern.findall(text)
    return int(log_number(found[-1])) if found else None


def _seed(name: str, text: str) -> str:
    match = re.search(r"seed[_-]?(\d+)", name) or _SEED.search(text) or re.search(r"(\d+)", name)
    return match[1] if match else ""


def _seconds(match: re.Match[str]) -> float:
    return log_number(match[1]) * _UNIT[match[2]]


def _seconds_of(text: str, match: re.Match[str]) -> float:
    end = text.find("\n", match.end())
    found = _EVAL_MS.search(text[match.end() : end if end >= 0 else len(text)])
    if found:
        return _seconds(found)
    # `..._exact` repeats the line before it, without the time
    line = text.rfind("\n", 0, match.start())
    before = text[text.rfind("\n", 0, max(line, 0)) + 1 : max(line, 0)]
    stem = re.sub(r"_exact$", "", match["label"].strip(" :="))
    if stem and before.strip().startswith(stem) and (found := _EVAL_MS.search(before)):
        return _seconds(found)
    return 0.0


def _train_seconds(text: str) -> float | None:
    stop = list(_STOP_MS.finditer(text))
    if stop:
        return _seconds(stop[-1])
    times = [_seconds(match) for match in _TRAIN_MS.finditer(text)]
    return max(times) if times else None
