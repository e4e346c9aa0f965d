"""The network: one class, one forward pass, for both published recipes and everything between.

Shapes: B batch, T tokens, D model width, V vocabulary. Read ``GPT.forward`` first: embed, encoder
blocks that leave skips, decoder blocks that take them, head. Training, scoring, calibration and
decoding all go through it; what differs enters from outside (weight hooks, forward hooks, a cache,
``logits_for``), so what is scored is what was trained.

Parameters live where the published models keep them. Layout "cores" has matrices under
``cores.<c>`` (shared when ``n_core`` says so) and scales under ``blocks.<l>``; layout "blocks"
keeps both under ``blocks.<l>``.
"""

from __future__ import annotations

import copy
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from underpar.model import depth
from underpar.model.attention import Attention, Rotation, rotation
from underpar.model.cache import Cache
from underpar.model.embedding import BigramHash, SmearGate
from underpar.model.init import initialise
from underpar.model.layers import (
    MLP,
    Linear,
    Norm,
    Table,
    blend,
    rms_norm,
    scaled,
)
from underpar.model.roles import Role, parameter
from underpar.recipe.schema import ModelSpec


class Core(nn.Module):
    """The matrices of a layer: attention and MLP."""

    def __init__(self, spec: ModelSpec, core: int) -> None:
        super().__init__()
        self.attn = Attention(spec, xsa=depth.has_xsa(spec, core))
        self.mlp = MLP(spec.d_model, spec.d_ff, spec.activation)


class Block(nn.Module):
    """A layer's residual wiring; in layout "blocks" it holds its matrices too, as a core does."""

    def __init__(self, spec: ModelSpec, layer: int) -> None:
        super().__init__()
        self.eps = spec.rms_eps
        self.ln_scale = (layer + 1) ** -0.5 if spec.ln_scale else 1.0
        ones = torch.ones(spec.d_model)
        self.attn_scale = parameter(ones.clone(), Role.SCALE)
        self.mlp_scale = parameter(ones.clone(), Role.SCALE)
        self.resid_mix = parameter(torch.stack((ones, torch.zeros_like(ones))), Role.MIX)
        if spec.layout == "blocks":
            self.attn = Attention(spec, xsa=depth.has_xsa(spec, layer))
            self.mlp = MLP(spec.d_model, spec.d_ff, spec.activation)

    def forward(
        self,
        x: Tensor,
        x0: Tensor,
        core: Any,
        tables: Rotation,
        *,
        cache: Cache | None = None,
        slot: int = 0,
    ) -> Tensor:
        """x, x0 [B, T, D]: residual stream and embedding. core: owner of ``attn`` and ``mlp``."""
        x = blend(x, self.resid_mix[0], x0, self.resid_mix[1])
        x = x + scaled(core.attn(self._normed(x), tables, cache=cache, slot=slot), self.attn_scale)
        return x + scaled(core.mlp(self._normed(x)), self.mlp_scale)

    def _normed(self, x: Tensor) -> Tensor:
        normed = rms_norm(x, self.eps)
        return normed if self.ln_scale == 1.0 else normed * self.ln_scale


class GPT(nn.Module):
    """The model of a ``ModelSpec``.

    seed: draws the starting weights without touching the global random state (see ``init``). None
    leaves random weights at zero, for a model about to be loaded. Under ``torch.device("meta")``
    nothing is drawn either.

    looping: whether looped layers loop; off when built, switched by the training loop and the
    loader of a file. compute_dtype: dtype of the activations from the embedding on; logits are
    float32 always.
    """

    def __init__(self, spec: ModelSpec, seed: int | None = None) -> None:
        super().__init__()
        self.spec = spec
        self.looping = False
        self.compute_dtype = torch.float32
        self.orders = (depth.order(spec, looping=False), depth.order(spec, looping=True))
        table_dtype = getattr(torch, spec.table_dtype)
        self.tok_emb = Table(spec.vocab_size, spec.d_model, Role.EMBEDDING, table_dtype)
        self.bigram = BigramHash(spec) if spec.bigram_buckets else None
        self.smear = SmearGate(spec.d_model) if spec.smear else None
        skips = (depth.skip_rows(spec), spec.d_model)
        self.skip_weights = parameter(torch.ones(skips), Role.SKIP)
        self.skip_gates = parameter(torch.zeros(skips), Role.GATE) if spec.skip_gates else None
        if spec.layout == "cores":
            self.cores = nn.ModuleList(Core(spec, core) for core in range(spec.cores))
        self.blocks = nn.ModuleList(Block(spec, layer) for layer in range(spec.n_layer))
        self.final_norm = Norm(spec.rms_eps)
        self.lm_head = None
        if not spec.tied:
            self.lm_head = Linear(spec.d_model, spec.vocab_size, Role.HEAD, zero_init=True)
        self._average_core_gradients()
        if seed is not None and not self.tok_emb.weight.is_meta:
            initialise(self, spec, seed)

    def forward(
        self, ids: Tensor, *, cache: Cache | None = None, logits_for: slice | None = None
    ) -> Tensor:
        """ids [B, T] integer -> logits [B, T', V] float32, T' = T or what ``logits_for`` selects.

        cache: the ids continue the sequences in it; call under ``torch.no_grad()``. Raises
        RecipeError when they would grow past seq_len with the NTK rescale on.
        """
        batch, n = ids.shape
        encoder, decoder = order = self.orders[self.looping]
        start = 0
        if cache is not None:
            cache.reserve(n, batch, len(order))
            start = cache.length
        tables = rotation(self.spec, start, n, ids.device, self.compute_dtype)
        x = x0 = self.embed(ids, cache=cache)
        skips: list[Tensor] = []
        for slot, layer in enumerate(encoder):
            x = self.blocks[layer](x, x0, self.core(layer), tables, cache=cache, slot=slot)
            skips.append(x)
        for step, layer in enumerate(decoder):
            if skips:
                x = self.join(x, skips.pop(), step)
            slot = len(encoder) + step
            x = self.blocks[layer](x, x0, self.core(layer), tables, cache=cache, slot=slot)
        if cache is not None:
            cache.advance(ids)
        return self.head(x if logits_for is None else x[:, logits_for])

    def new_cache(self, batch: int) -> Cache:
        """An empty cache of ``batch`` lanes; looping, dtype and device must then stay as they are.

        Made outside inference mode, so that it can be used inside and outside.
        """
        spec, layers = self.spec, len(self.orders[self.looping])
        shape = (2, layers, batch, spec.n_kv_head, spec.seq_len, spec.d_head)
        with torch.inference_mode(False):
            device = self.tok_emb.weight.device
            keys_values = torch.zeros(shape, dtype=self.compute_dtype, device=device)
        return Cache(keys_values, spec.seq_len if spec.rope_ntk else None)

    def embed(self, ids: Tensor, *, cache: Cache | None = None) -> Tensor:
        """ids [B, T] -> the residual stream's start [B, T, D], normed, then smeared."""
        x = self.tok_emb(ids).to(self.compute_dtype)
        if self.bigram is not None:
            x = x + self.bigram(ids, None if cache is None else cache.previous_id, x.dtype)
        x = rms_norm(x, self.spec.rms_eps)
        if self.smear is None:
            return x
        smeared = self.smear(x, None if cache is None else cache.before_smear)
        if cache is not None:
            cache.before_smear = x[:, -1]
        return smeared

    def join(self, x: Tensor, skip: Tensor, step: int) -> Tensor:
        """Mix a skip into the stream before decoder step ``step``: a sum, or a learned lerp."""
        skip = scaled(skip, self.skip_weights[step])
        if self.skip_gates is None:
            return x + skip
        g = torch.sigmoid(self.skip_gates[step])
        return blend(skip, 1 - g, x, g)

    def head(self, x: Tensor) -> Tensor:
        """x [B, T', D] -> logits in (-softcap, softcap), float32 (of a float64 model: float64)."""
        x = self.final_norm(x)
        table = self.tok_emb.weight
        raw = F.linear(x, table.to(x.dtype)) if self.lm_head is None else self.lm_head(x)
        cap = self.spec.softcap
        wide = raw if raw.dtype == torch.float64 else raw.float()
        return cap * torch.tanh(wide / cap)

    def core(self, layer: int) -> Any:
        """The module whose ``attn`` and ``mlp`` layer ``layer`` uses."""
        shared = self.spec.layout == "cores"
        return self.cores[depth.core_of(self.spec, layer)] if shared else self.blocks[layer]

    def _average_core_gradients(self) -> None:
        """A core used n times gets 1/n of its summed gradient (#456).

        A hook on a leaf sees the sum over all uses in one backward pass, before it is added to
        ``.grad``: so it acts once a backward, and accumulated micro-steps stay exact.
        """
        if not self.spec.n_core:
            return
        for core, uses in zip(self.cores, depth.core_uses(self.spec)):
            for weight in core.parameters():
                if uses > 1:
                    weight.register_hook(lambda grad, uses=uses: grad / uses)


def twin(model: GPT) -> GPT:
    """A full copy. The framework's own would drop the parameters' roles and hooks."""
    copied = copy.deepcopy(model)
    for mine, its in zip(model.parameters(), copied.parameters()):
        its.role = mine.role  # type: ignore[attr-defined]
    copied._average_core_gradients()
    return copied


def loss(
    model: nn.Module,
    ids: Tensor,
    targets: Tensor,
    reduction: Literal["mean", "sum", "none"] = "mean",
) -> Tensor:
    """Cross entropy in nats, float32: ids, targets [B, T] -> scalar, or [B, T] for "none".

    model: a GPT, or a compiled or data-parallel wrapper of one.
    """
    logits = model(ids)
    nats = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction=reduction)
    return nats.view(targets.shape) if reduction == "none" else nats
