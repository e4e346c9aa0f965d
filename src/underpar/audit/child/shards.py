"""The token streams of the tiny world, in the published shard format.

The validation stream must do two things at once. Every window of four tokens occurs once, so that
a recorder that sees some inputs can say where in the stream they stand. And contexts of two or
three tokens repeat often in the later half, because a count cache gives nothing away until it
meets a context for the second time. Documents start with the BOS token and differ in length.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from .pieces import BOS, CONTROLS, Pieces, byte_pieces

MAGIC, VERSION, HEADER = 20240520, 1, 256
WINDOW = 4


class _Writer:
    """Appends tokens so that no window of four repeats, in this stream or an earlier one."""

    def __init__(self, rng: random.Random, alphabet: list[int], seen: set[tuple[int, ...]]) -> None:
        self.rng, self.alphabet, self.seen = rng, alphabet, seen
        self.tokens: list[int] = []

    def put(self, token: int) -> bool:
        """Append `token` unless its window was seen."""
        window = (*self.tokens[-(WINDOW - 1) :], token)
        if len(window) == WINDOW:
            if window in self.seen:
                return False
            self.seen.add(window)
        self.tokens.append(token)
        return True

    def put_any(self) -> None:
        """Append some text token; the alphabet is large enough for one to be free."""
        while not self.put(self.rng.choice(self.alphabet)):
            pass

    def copy(self, length: int) -> None:
        """Append up to `length` tokens as they stood somewhere before: a context met again."""
        start = self.rng.randrange(1, max(2, len(self.tokens) - length))
        for token in self.tokens[start : start + length]:
            if token == BOS or not self.put(token):
                return


def _alphabet(vocab: int) -> list[int]:
    """Tokens that documents are made of. At most 512, or repeats would be too rare to matter."""
    raw = list(range(CONTROLS, CONTROLS + byte_pieces(vocab)))
    text = list(range(CONTROLS + byte_pieces(vocab), vocab))
    return (text[:504] + raw[:8]) if text else list(range(CONTROLS, vocab))


def _write(n_tokens: int, vocab: int, rng: random.Random, seen: set[tuple[int, ...]]) -> np.ndarray:
    writer = _Writer(rng, _alphabet(vocab), seen)
    left = 0
    while len(writer.tokens) < n_tokens:
        if left <= 0 and writer.put(BOS):
            left = rng.choice((24, 60, 90, 150, 220, 330, 500))
        before = len(writer.tokens)
        if before > n_tokens // 3 and rng.random() < 0.5:
            writer.copy(rng.choice((2, 3, 3)))
        writer.put_any()
        left -= len(writer.tokens) - before
    return np.array(writer.tokens[:n_tokens], dtype=np.uint16)


def stream(spec: dict[str, Any]) -> np.ndarray:
    """The validation stream.

    Args:
        spec: vocab, n_tokens, seed and flips [(index, token)]; flips are applied last, so that
            two streams that differ in their flips alone agree everywhere else.

    Returns:
        uint16 [n_tokens]; every window of four tokens is unique before the flips.
    """
    tokens = _plain(spec, set())
    for index, token in spec.get("flips") or ():
        tokens[int(index)] = int(token)
    return tokens


def _plain(spec: dict[str, Any], seen: set[tuple[int, ...]]) -> np.ndarray:
    rng = random.Random(int(spec["seed"]))
    return _write(int(spec["n_tokens"]), int(spec["vocab"]), rng, seen)


def train_stream(spec: dict[str, Any], n_tokens: int) -> np.ndarray:
    """Training tokens uint16 [n_tokens]: alike in kind, no window of the validation set."""
    seen: set[tuple[int, ...]] = set()
    _plain(spec, seen)
    rng = random.Random(int(spec["seed"]) + 7919)
    alphabet, tokens, left = _alphabet(int(spec["vocab"])), [BOS], 60
    while len(tokens) < n_tokens:
        token = BOS if left <= 0 and tokens[-1] != BOS else rng.choice(alphabet)
        while (*tokens[-(WINDOW - 1) :], token) in seen:
            token = rng.choice(alphabet)
        tokens.append(token)
        left = rng.choice((60, 150, 330)) if token == BOS else left - 1
    return np.array(tokens, dtype=np.uint16)


def byte_lengths(tokens: np.ndarray, pieces: Pieces) -> np.ndarray:
    """Bytes of every token after its predecessor, uint16 [N]."""
    base = np.array(pieces.base_bytes(), dtype=np.uint16)
    lead = np.array(pieces.leading_space())
    edge = np.array(pieces.boundary())
    out = base[tokens]
    out[1:] += (lead[tokens[1:]] & ~edge[tokens[:-1]]).astype(np.uint16)
    return out


def write_shard(path: Path, tokens: Iterable[int] | np.ndarray) -> None:
    """Header of 256 int32 (magic, version, count), then uint16 tokens, all little-endian."""
    body = np.asarray(tokens, dtype="<u2")
    header = np.zeros(HEADER, dtype="<i4")
    header[:3] = MAGIC, VERSION, body.size
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(header.tobytes() + body.tobytes())
