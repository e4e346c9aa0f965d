"""A second attempt, less shrunk, where the first one ended in one of the script's own checks.

The child reads its error and says what it would shrink less (`child.advice`). It is a stranger's
process: its advice may only be numbers for known sizes and for settings.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from underpar.audit.facts import Job, Outcome

MOST = 3
"""Attempts after the first."""
_SIZES = frozenset(("layers", "heads", "kv_heads", "head_dim", "width", "side"))
_LARGEST = 4096
_NAME = re.compile(r"[A-Z][A-Z0-9_]{1,60}")
_NUMBER = re.compile(r"-?\d{1,12}(\.\d{1,12})?")
_MOST_SETTINGS = 20


def settle(job: Job, run: Callable[[Job], Outcome]) -> tuple[Job, Outcome]:
    """Run `job`, then gentler ones while they are advised: the last job and how it ended."""
    outcome = run(job)
    for _ in range(MOST):
        other = gentler(job, outcome)
        if other is None:
            break
        job, outcome = other, run(other)
    return job, outcome


def gentler(job: Job, outcome: Outcome) -> Job | None:
    """The job to try after `outcome`, or None when nothing else is to be tried."""
    advice = outcome.meta.get("advice")
    if outcome.status != "failed" or not isinstance(advice, Mapping):
        return None
    shrink: dict[str, Any] = {**job.shrink, **_sizes(advice)}
    shrink["environment"] = {**job.shrink.get("environment", {}), **_settings(advice)}
    return replace(job, shrink=shrink) if shrink != dict(job.shrink) else None


def _sizes(advice: Mapping[str, Any]) -> dict[str, int]:
    return {
        name: value
        for name, value in advice.items()
        if name in _SIZES and type(value) is int and 0 < value <= _LARGEST
    }


def _settings(advice: Mapping[str, Any]) -> dict[str, str]:
    given = advice.get("environment")
    items = list(given.items())[:_MOST_SETTINGS] if isinstance(given, Mapping) else []
    return {
        name: text
        for name, text in items
        if isinstance(name, str)
        and isinstance(text, str)
        and _NAME.fullmatch(name)
        and _NUMBER.fullmatch(text)
    }
