"""Which stand-ins the script really touched: a verdict reached through them must name them."""

from __future__ import annotations

_HITS: dict[str, int] = {}


def hit(name: str) -> None:
    """Note that the stand-in `name` answered a call."""
    _HITS[name] = _HITS.get(name, 0) + 1


def names() -> list[str]:
    """Names of the stand-ins touched so far, sorted."""
    return sorted(_HITS)
