"""Where a training stands, in small numbers."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Counters:
    """The small part of the state. stop_reason: empty while training is unfinished.

    elapsed: seconds of training. losses: nats a token, one a step, mean over ranks.
    """

    step: int = 0
    elapsed: float = 0.0
    looping: bool = False
    qat: bool = False
    stop_reason: str = ""
    dtype: str = ""
    compiled: bool = False
    losses: list[float] = field(default_factory=list)
