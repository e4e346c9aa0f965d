"""Which number in a submission's own logs is the score that it claims."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from underpar.audit.facts import Submission

SAME_SCORE = 3e-4  # bpb by which a claim may differ from the logs it rests on
NUMBER = re.compile(
    r"((?:[A-Za-z_]\w*[_ .]?)?(?:bpb|bits_per_byte)\w*)\s*[:=]\s*(\d+\.\d+)", re.IGNORECASE
)
LONGEST = 1000  # characters of a line of results
MAIN = ("val_bpb", "bpb", "mean_val_bpb", "val_bpb_mean")
PROGRESS = ("step", "train", "iter", "warmup")  # labels of lines that are printed on the way


def is_bits(name: str) -> bool:
    return "bpb" in name.lower() or "bits_per_byte" in name.lower()


def label(line: Any) -> str:
    """What a log line is called: its words before the first number, without digits."""
    head = re.split(r"[:=]\s*-?\d", str(line), maxsplit=1)[0]
    return re.sub(r"[\d\W_]+", " ", head).strip().lower()


def claimed(sub: Submission) -> tuple[str, str] | None:
    """Label and name of the number in the logs that is the claimed score, if there is one.

    A claim is a seed's number or the mean over the seeds, so both single logs and the mean over
    all logs are compared with it; the last number of a name in a log is the one that counts.
    """
    claims = _claims(sub)
    found: dict[tuple[str, str], list[float]] = {}
    for name, text in sorted(sub.documents.items()):
        if claims and name.endswith((".log", ".txt")):
            own: dict[tuple[str, str], float] = {}
            for line in text.splitlines():
                for match in NUMBER.finditer(line) if len(line) < LONGEST else ():
                    if is_bits(match.group(1)):
                        own[label(line), match.group(1).strip().lower()] = float(match.group(2))
            for key, value in own.items():
                found.setdefault(key, []).append(value)
    errors = [
        (min(abs(v - c) for v in (*values, float(np.mean(values))) for c in claims), -i, key)
        for i, (key, values) in enumerate(found.items())
        if not key[0].startswith(PROGRESS)
    ]
    best = min(errors, default=(math.inf, 0, ("", "")))
    return best[2] if best[0] < SAME_SCORE else None


def _claims(sub: Submission) -> list[float]:
    """Claimed bits per byte in the submission.json: the main number, else all there are."""
    for name, text in sub.documents.items():
        if name.endswith("submission.json"):
            try:
                said = json.loads(text)
            except ValueError:
                continue
            numbers = list(_numbers(said))
            main = [v for k, v in numbers if k in MAIN]
            return main or [v for k, v in numbers if "std" not in k]
    return []


def _numbers(said: Any) -> Iterator[tuple[str, float]]:
    """(key, value) of everything called bpb, at any depth."""
    if isinstance(said, dict):
        for key, value in said.items():
            if "bpb" in key.lower() and isinstance(value, float):
                yield key.lower(), value
            else:
                yield from _numbers(value)
    elif isinstance(said, list):
        for value in said:
            yield from _numbers(value)
