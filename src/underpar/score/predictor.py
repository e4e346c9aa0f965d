"""Distributions from tokens: the one way scorer and text codec ask the model.

A predictor is handed input tokens and returns logits. It holds no stream and is never given a
target, so it cannot look at what it predicts; it does not normalise either, the ledger does.

Two ways to ask, one answer (to 1e-5): ``predict`` takes whole windows and returns all the positions
asked for at once; a ``Stepwise`` one also goes token by token, as a decoder must.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from underpar.model import GPT, Cache

#: Most logits of one batch, 256 MB of float32: full windows over 8,192 symbols must fit anywhere.
MAX_LOGITS = 1 << 26


class Predictor:
    """Logits of ``model`` for windows of up to ``context`` tokens, on the model's device."""

    def __init__(self, model: GPT, context: int) -> None:
        self._model, self._context = model, context
        self._device = next(model.parameters()).device
        self.vocab_size = model.spec.vocab_size
        #: how many positions one call should ask for at most
        self.max_positions = max(MAX_LOGITS // self.vocab_size, 1)

    # inference_mode would be a little faster, but tables cached under it (rotary angles) cannot
    # take part in a later backward pass, and test-time training needs one
    @torch.no_grad()
    def predict(self, windows: Sequence[NDArray[np.uint16]], first: int) -> Tensor:
        """Float32 logits [B, T - first, V] of positions first .. T-1 of B windows of T tokens.

        Row t of a window depends on its tokens 0 .. t. Short windows are padded on the right, which
        a causal model cannot see, so that all have the length that rotary scaling may depend on.
        """
        n = len(windows[0])
        ids = np.zeros((len(windows), self._context), dtype=np.int64)
        for row, window in zip(ids, windows, strict=True):
            row[:n] = window
        inputs = torch.from_numpy(ids).to(self._device)
        return self._model(inputs, logits_for=slice(first, n))


class Stepwise(Predictor):
    """Token by token, for whom a token is known only after the distribution before it was read."""

    _cache: Cache | None = None

    def begin(self, windows: NDArray[np.uint16]) -> Tensor:
        """Float32 logits [B, V] of what follows the B beginnings of windows [B, T], T >= 1."""
        self._cache = self._model.new_cache(len(windows))
        return self._read(windows)

    def step(self, tokens: NDArray[np.uint16]) -> Tensor:
        """Append one token [B] to each window: float32 logits [B, V] of what follows it."""
        return self._read(tokens[:, None])

    @torch.no_grad()
    def _read(self, tokens: NDArray[np.uint16]) -> Tensor:
        assert self._cache is not None, "begin comes before step"
        ids = torch.from_numpy(tokens.astype(np.int64)).to(self._device)
        return self._model(ids, cache=self._cache, logits_for=slice(-1, None))[:, 0]
