"""Lanes: one text as several streams that advance together.

A decoder knows a token only after the model's step for it, so a single stream decodes one token a
step, and a step costs nearly the same for sixteen streams as for one. The text is therefore cut
into parts of equal length. Each is a stream of its own: it begins as the text did (BOS), has its
own windows, and its own chunks; chunk c of all lanes is scored before any of it is trained on, and
then all of it is, as one chunk. What this costs is the context across the cuts, and a model that
adapts after ``lanes`` times as many tokens.

One lane is the official score. Scorer and codec share what is here, so that a coded length always
has a score to be compared with.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby, pairwise
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray

from underpar.recipe.schema import ScoreSpec
from underpar.score.windows import Chunk, WindowPlan

#: A lane shorter than this loses more to its cut than its speed is worth.
LEAST_TOKENS = 2048

#: Lanes at most. More would decode faster yet, but adapt later, and lose more context at the cuts.
MOST_ADAPTING, MOST_FIXED = 32, 64

#: With fewer chunks in a text there is no adapting to speak of.
LEAST_CHUNKS = 8


def lanes_for(n_targets: int, *, adapts: bool) -> int:
    """How many lanes a text of so many tokens is cut into."""
    most = MOST_ADAPTING if adapts else MOST_FIXED
    return min(max(n_targets // LEAST_TOKENS, 1), most)


def fitted_chunk(spec: ScoreSpec, n_targets: int, lanes: int) -> ScoreSpec:
    """``spec`` with its chunk, counted in tokens of one lane, fitted to the lanes and the text.

    All lanes together make a chunk of about ``ttt_chunk``; a short text has shorter ones, so that
    its later parts still profit. Never shorter than one sequence of
    ``context``, which has to be filled in.
    """
    assert spec.context
    wanted = min(spec.ttt_chunk // lanes, n_targets // lanes // LEAST_CHUNKS)
    return replace(spec, ttt_chunk=max(wanted // spec.context, 1) * spec.context)


def cut(tokens: NDArray[np.uint16], lanes: int) -> list[NDArray[np.uint16]]:
    """The N - 1 targets of ``tokens`` [N] in consecutive parts, each a stream of its own.

    Lengths differ by one at most. Every lane begins with the first token of the whole: what stands
    before its own first target is, for a decoder, the end of a lane that is not decoded yet.
    """
    edges = lane_edges(len(tokens) - 1, lanes)
    return [np.concatenate((tokens[:1], tokens[a + 1 : b + 1])) for a, b in pairwise(edges)]


def lane_edges(n_targets: int, lanes: int) -> list[int]:
    """Lane j holds the targets edges[j] .. edges[j + 1] - 1 of the whole."""
    return [n_targets * lane // lanes for lane in range(lanes + 1)]


def in_step(plans: Sequence[WindowPlan], chunk_size: int) -> Iterator[tuple[int, dict[int, Chunk]]]:
    """The chunks that are coded together: (index, lane -> its chunk), in order."""

    def of(lane: int) -> Iterator[tuple[int, int, Chunk]]:
        return ((chunk.index, lane, chunk) for chunk in plans[lane].chunks(chunk_size))

    merged = heapq.merge(*map(of, range(len(plans))), key=itemgetter(0, 1))
    for index, group in groupby(merged, key=itemgetter(0)):
        yield index, {lane: chunk for _, lane, chunk in group}
