"""Test-time training: adapting the model to text that has been scored.

After chunk c is on the books the model takes a few optimizer steps on it, at a learning rate that
falls along a cosine over the chunks. Where the stream runs in several lanes, the chunks that these
have scored by then count as one. What is trained, and how, follows #456 (AdamW) and #1413 (SGD
with momentum): consecutive, non-overlapping sequences of one context each; the rest of the chunk is
not used; weights and optimizer state live on from chunk to chunk; the last chunk is not trained on,
since nothing comes after it.

With several processes the sequences of each step are split contiguously, so a step is the same on
any number of them. (Published code takes ``ttt_batch`` on each rank; at its own settings a chunk is
one step either way.) Gradients are weighted by sequences: ranks with unequal counts, or with none,
still take the same step of the same mean gradient.

The model stays in eval mode: fake quantization, a matter of training, must not touch these steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from underpar import dist
from underpar.errors import LegalityError
from underpar.model import GPT, loss
from underpar.recipe.schema import ModelSpec, ScoreSpec
from underpar.score.ledger import ScoredChunk

#: Most tokens in one forward and backward pass; a step accumulates over as many as it needs.
#: Sixteen sequences of 2,048 through #1413 at once would keep 18 GiB of activations.
MICRO_TOKENS = 8192


def chunk_lr_multiplier(chunk: int, n_chunks: int) -> float:
    """Cosine from 1 at chunk 0 to 0 at the last, constant inside a chunk."""
    return 0.5 * (1.0 + math.cos(math.pi * chunk / max(n_chunks - 1, 1)))


class Adapter:
    """Trains ``model`` in place on scored chunks. ``steps`` counts the optimizer steps taken.

    Parameters of the first ``ttt_freeze`` blocks, and of the cores they use, are frozen; tables,
    skips and gates always train.
    """

    def __init__(self, model: GPT, spec: ScoreSpec) -> None:
        self._model, self._spec = model, spec
        self._context = spec.context or model.spec.seq_len
        model.requires_grad_(True)
        if spec.ttt_freeze:
            frozen = frozen_parts(model.spec, spec.ttt_freeze)
            for path, parameter in model.named_parameters():
                parameter.requires_grad_(path.split(".")[:2] not in frozen)
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self._optimizer = _optimizer(self._parameters, spec)
        self.steps = 0

    def update(self, lanes: Sequence[ScoredChunk], index: int, n_chunks: int) -> None:
        """Train on chunk ``index`` of ``n_chunks``, one part from each lane. Collective.

        Raises LegalityError for anything but ScoredChunks. Does nothing for the last chunk, nor
        for one whose parts are all shorter than a sequence.
        """
        pairs = [self._sequences(chunk) for chunk in lanes]
        inputs, targets = (torch.cat(parts) for parts in zip(*pairs, strict=True))
        n = len(inputs)
        if n == 0 or index == n_chunks - 1:
            return
        for group in self._optimizer.param_groups:
            group["lr"] = self._spec.ttt_lr * chunk_lr_multiplier(index, n_chunks)
        with torch.enable_grad():
            for _ in range(self._spec.ttt_epochs):
                for i in range(0, n, self._spec.ttt_batch):
                    total = min(n - i, self._spec.ttt_batch)
                    first, end = dist.share(total)
                    mine = slice(i + first, i + end)
                    self._step(inputs[mine], targets[mine], total)

    def _sequences(self, chunk: ScoredChunk) -> tuple[Tensor, Tensor]:
        """Inputs and targets [n, context], int64, of the whole sequences in a chunk."""
        if not isinstance(chunk, ScoredChunk):
            raise LegalityError(
                "test-time training", got=type(chunk).__name__, wanted="a ScoredChunk of the ledger"
            )
        n = (chunk.end - chunk.start) // self._context
        tokens = torch.from_numpy(chunk.tokens[: n * self._context + 1].astype("int64"))
        return tokens[:-1].view(n, self._context), tokens[1:].view(n, self._context)

    def _step(self, inputs: Tensor, targets: Tensor, total: int) -> None:
        """One step on the mean loss of ``total`` sequences, of which these [b, T] are ours."""
        self._optimizer.zero_grad(set_to_none=True)
        device = self._parameters[0].device
        rows = max(MICRO_TOKENS // self._context, 1)
        for ids, wanted in zip(inputs.split(rows), targets.split(rows)):
            if len(ids):  # splitting nothing gives one empty piece
                mean = loss(self._model, ids.to(device), wanted.to(device))
                (mean * (len(ids) / total)).backward()
        for parameter in self._parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            dist.all_reduce_sum(parameter.grad)
        if self._spec.ttt_clip > 0:
            torch.nn.utils.clip_grad_norm_(self._parameters, self._spec.ttt_clip)
        self._optimizer.step()
        self.steps += 1


def frozen_parts(spec: ModelSpec, n_blocks: int) -> list[list[str]]:
    """First two components of the paths that freezing the first ``n_blocks`` blocks freezes."""
    blocks = [["blocks", str(layer)] for layer in range(n_blocks)]
    return blocks + [["cores", str(layer % spec.cores)] for layer in range(n_blocks)]


def _optimizer(parameters: list[torch.nn.Parameter], spec: ScoreSpec) -> torch.optim.Optimizer:
    if spec.ttt_optimizer == "adamw":
        return torch.optim.AdamW(
            parameters, lr=spec.ttt_lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, fused=True
        )
    return torch.optim.SGD(parameters, lr=spec.ttt_lr, momentum=spec.ttt_momentum)
