"""Where the codec spends its time: a stopwatch around its steps.

No profiler: one changes the picture, by a cost for every call. Here a few calls a token are timed,
each of them far longer than reading a clock.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any
from unittest.mock import patch

from underpar.codec import codec, session
from underpar.codec.tables import GridTables
from underpar.data.bytetokens import ByteTokens
from underpar.score.adapt import Adapter
from underpar.score.ledger import Ledger
from underpar.score.predictor import Predictor


class Stopwatch:
    """Wall time of a stretch of work, and of its parts, which never hold each other."""

    STEPS: tuple[tuple[Any, str, str], ...] = (
        (codec, "load", "load"),
        (ByteTokens, "encode", "tokenizer"),
        (ByteTokens, "decode", "tokenizer"),
        (Predictor, "begin", "prefill"),
        (Predictor, "step", "steps"),
        (session, "float_tables", "tables"),
        (GridTables, "__call__", "tables"),
        (session, "encode_rows", "coder"),
        (session, "decode_rows", "coder"),
        (Ledger, "commit", "ledger"),
        (Ledger, "close_chunk", "ledger"),
        (Adapter, "update", "adaptation"),
    )

    def __init__(self) -> None:
        self._parts: dict[str, float] = defaultdict(float)
        self._seconds = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        with ExitStack() as stack:
            for owner, name, part in self.STEPS:
                timed = self._timed(getattr(owner, name), part)
                stack.enter_context(patch.object(owner, name, timed))
            start = time.perf_counter()
            yield
            self._seconds = time.perf_counter() - start

    def _timed(self, function: Callable[..., Any], part: str) -> Callable[..., Any]:
        @wraps(function)
        def timed(*arguments: Any, **keywords: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*arguments, **keywords)
            finally:
                self._parts[part] += time.perf_counter() - start

        return timed

    def facts(self, tokens: int) -> dict[str, Any]:
        """Seconds without loading, tokens a second, seconds by part; 'other' is the rest."""
        parts = dict(self._parts)
        loading = parts.pop("load", 0.0)
        seconds = self._seconds - loading
        parts["other"] = seconds - sum(parts.values())
        return {
            "seconds": round(seconds, 3),
            "tokens_per_second": round(tokens / seconds, 1),
            "load_seconds": round(loading, 3),
            "parts": {name: round(value, 3) for name, value in parts.items()},
        }
