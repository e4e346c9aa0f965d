"""What to shrink less, read from the error that stopped the script.

Scripts check their settings, and a tiny setting may fail a check that the original passes: a table
must have at least 1024 slots, a layer number must lie in a range, one size must divide another. The
error usually names the setting, or the statement that raised it and the condition above it do. The
advice goes to the auditor with the result, and the next run follows it.

In this order: the nearest value that the message allows; larger values of what was named; all
layers; the original width with all heads. Nothing is advised against errors that no setting causes.
"""

from __future__ import annotations

import ast
import re
import traceback
from pathlib import Path
from typing import Any

from .shrink import Seen, Shrinker, setting_number

_UNRELATED = (
    ImportError,
    OSError,
    MemoryError,
    NotImplementedError,
    SyntaxError,
    KeyboardInterrupt,
)
_GROWTH = 8
_MODEL = ("layers", "heads", "kv_heads", "head_dim", "width", "side")
"""Sizes that many settings share: all of them go back together."""
_WIDE = {
    "width": ("MODEL_DIM", "D_MODEL", "N_EMBD", "DIM"),
    "heads": ("NUM_HEADS", "N_HEADS", "N_HEAD"),
    "kv_heads": ("NUM_KV_HEADS", "KV_HEADS"),
    "head_dim": ("HEAD_DIM",),
}
_LARGEST = 4096
_WORD = re.compile(r"[A-Za-z_]\w{2,}")
_INTERVAL = re.compile(r"(?:in|between)\s*[\[(]?\s*(-?\d+)\s*(?:,|and|\.\.+|-|to)\s*(-?\d+)")
_LOW = re.compile(r"(>=|\u2265|>|at least|minimum(?: of| is)?|no less than)\s*(-?\d+)")
_HIGH = re.compile(r"(<=|\u2264|<|at most|maximum(?: of| is)?|no more than|exceeds?)\s*(-?\d+)")
_MULTIPLE = re.compile(r"(?:multiple of|divisible by)\s*(\d+)")
_GOT = re.compile(r"\b(?:got|is|was|found|=)\s*(\d+)\b")


def allowed(message: str, value: float) -> float:
    """The value nearest to `value` that the check behind `message` lets pass, as far as it says."""
    for match in _INTERVAL.finditer(message):
        value = max(int(match[1]), min(value, int(match[2])))
    for match in _HIGH.finditer(message):
        value = min(value, int(match[2]) - (match[1] == "<"))
    for match in _LOW.finditer(message):
        value = max(value, int(match[2]) + (match[1] == ">"))
    for match in _MULTIPLE.finditer(message):
        step = max(1, int(match[1]))
        value = max(step, -(-int(value) // step) * step)
    if re.search(r"(?i)power[- ]of[- ](two|2)", message) and value > 0:
        value = 1 << (int(value) - 1).bit_length()
    return value


def advise(error: BaseException, scratch: Path, shrinker: Shrinker) -> dict[str, Any]:
    """Sizes by name, and "environment", for the next run; empty when there is nothing to try."""
    if isinstance(error, _UNRELATED):
        return {}
    message = str(error)
    named = _named(message, shrinker)
    if not isinstance(error, KeyError | IndexError):
        for name, value in named.items() or _stranger(message):
            fit = allowed(message, value)
            if fit != value:
                return {"environment": {name: str(fit)}}
    named = named or _named(_statement(error, scratch), shrinker)
    return _larger([n for n in named if n in shrinker.seen], shrinker) or _whole_model(shrinker)


def _named(text: str, shrinker: Shrinker) -> dict[str, float]:
    """Settings that `text` names, with their present values, the first named first."""
    found: dict[str, float] = {}
    for word in _WORD.findall(text):
        key = word.upper().lstrip("_")
        if key not in shrinker.seen:
            longer = [n for n in shrinker.seen if n.endswith("_" + key) and len(key) > 4]
            key = longer[0] if len(longer) == 1 else key
        if key in shrinker.seen:
            found.setdefault(key, shrinker.seen[key].tiny)
    return found


def _stranger(message: str) -> list[tuple[str, float]]:
    """A setting that only the message knows, and the value it complains about."""
    names = re.findall(r"\b[A-Z][A-Z0-9]*_[A-Z0-9_]+\b", message)
    got = _GOT.findall(message)
    return [(names[0], int(got[-1]))] if names and got else []


def _statement(error: BaseException, scratch: Path) -> str:
    """The script's innermost statement that failed, with the conditions that led to it."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if _is_ours(f.filename, scratch)]
    if not frames or frames[-1].lineno is None:
        return ""
    line = frames[-1].lineno
    try:
        tree = ast.parse(Path(frames[-1].filename).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return ""
    around = [
        n for n in ast.walk(tree)
        if isinstance(n, ast.stmt) and n.lineno <= line <= (n.end_lineno or n.lineno)
    ]  # fmt: skip
    tests = [ast.unparse(n.test) for n in around if isinstance(n, ast.If)][-1:]
    last = [ast.unparse(n) for n in around if not getattr(n, "body", None)]
    return " ".join([*last[-1:], *tests])


def _is_ours(name: str, scratch: Path) -> bool:
    return Path(name).is_relative_to(scratch)


def _larger(names: list[str], shrinker: Shrinker) -> dict[str, Any]:
    """What was made small among `names`, less so."""
    advice: dict[str, Any] = {}
    for name in names:
        seen: Seen = shrinker.seen[name]
        if seen.tiny >= seen.full or name.startswith("VOCAB"):
            continue  # the vocabulary is the stream's
        if seen.size in _MODEL:
            advice[seen.size] = int(min(seen.full, _LARGEST))
        else:
            step = min(seen.full, max(1, seen.tiny) * _GROWTH)
            advice.setdefault("environment", {})[name] = str(step)
    return advice


def _whole_model(shrinker: Shrinker) -> dict[str, Any]:
    sizes = shrinker.sizes
    if shrinker.full_layers > sizes.layers:
        return {"layers": int(min(shrinker.full_layers, 64))}
    advice = {}
    for size, names in _WIDE.items():
        full = next((shrinker.seen[n].full for n in names if n in shrinker.seen), 0)
        if setting_number(full) and full > getattr(sizes, size):
            advice[size] = int(min(full, _LARGEST))
    return advice
