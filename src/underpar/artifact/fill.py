"""Fill a byte budget: the one factor on all quantization steps at which code plus file just fit.

Steps that are a multiple of each row's deviation make a file whose size falls smoothly as they
widen: a step twice as wide saves about one bit a weight. So a few tries are enough. The first two
follow that slope, the later ones interpolate between the nearest file that is too large and the
nearest that fits. Sizes are those of files that were really coded, not estimates.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

from underpar.artifact.container import split
from underpar.recipe.schema import Budget

#: A budget is filled when at most this share of it is left.
SLACK = 0.001
#: Steps become at most so many times finer or wider than the recipe's, and so many files are tried.
FINEST, WIDEST, TRIES = 1 / 8, 8.0, 16


def total_bytes(path: Path, budget: Budget, code: int) -> int:
    """Bytes that count: ``code``, and the file but for its tokenizer if that goes free."""
    data = path.read_bytes()
    free = b"" if budget.count_tokenizer else split(data)[1].get("tokenizer", b"")
    return code + len(data) - len(free)


def search(size_at: Callable[[float], int], first: int, cap: int, codes: int) -> float:
    """The factor whose total ``size_at(factor)`` lies within ``SLACK`` below ``cap``, or nearest.

    first: the total at factor 1. codes: weights that are stored as codes; they give the slope of
    the first guess. Of the files that were tried the largest that fits wins; when none fits, the
    smallest.
    """
    aim, tried = cap * (1 - SLACK / 2), {0.0: first}
    x, size, low, high = 0.0, first, math.log2(FINEST), math.log2(WIDEST)
    while not cap * (1 - SLACK) <= size <= cap and len(tried) < TRIES:
        over = [y for y, bytes_ in tried.items() if bytes_ > cap]
        under = [y for y, bytes_ in tried.items() if bytes_ <= cap]
        if over and under:
            a, b = max(over), min(under)
            share = (tried[a] - aim) / max(tried[a] - tried[b], 1)
            x = a + (b - a) * min(max(share, 0.05), 0.95)
        else:
            x = min(max(x + 8 * (size - aim) / codes * 1.1, low), high)
        if x in tried:
            break
        size = tried[x] = size_at(2.0**x)
    fitting = {y: bytes_ for y, bytes_ in tried.items() if bytes_ <= cap}
    best = max(fitting, key=lambda y: fitting[y]) if fitting else min(tried, key=lambda y: tried[y])
    return 2.0**best
