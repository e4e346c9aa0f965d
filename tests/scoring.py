"""A small model and a small stream for the tests of scoring."""

import numpy as np
import torch

from underpar.data.validation import ValidationSet
from underpar.model import GPT
from underpar.recipe.schema import ModelSpec, ScoreSpec

V = 17
MODEL = ModelSpec(
    vocab_size=V,
    seq_len=16,
    n_layer=3,
    layout="cores",
    n_core=2,
    d_model=16,
    n_head=2,
    n_kv_head=1,
    d_ff=32,
    bigram_buckets=16,
    bigram_dim=8,
    smear=True,
    xsa_last=1,
)
LOOPED = ModelSpec(
    vocab_size=V,
    seq_len=16,
    n_layer=3,
    d_model=16,
    n_head=2,
    n_kv_head=1,
    d_ff=32,
    rope_dims=4,
    rope_ntk=True,
    ln_scale=True,
    skip_gates=True,
    loop_start=1,
    loop_end=1,
    loop_extra=1,
)
#: 3 sequences a chunk; the stride divides neither chunk nor stream
SCORE = ScoreSpec(context=16, stride=5, ttt_chunk=48, ttt_lr=0.05, ttt_epochs=2, ttt_batch=4)


def small_model(spec: ModelSpec = MODEL, seed: int = 0) -> GPT:
    """Random weights everywhere: a new model's zero projections would hide attention and MLP."""
    model = GPT(spec, seed=seed)
    model.looping = bool(spec.loop_extra)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return model


def small_stream(n_tokens: int = 211, seed: int = 0, vocab_size: int = V) -> ValidationSet:
    """Tokens that follow each other mostly by +3, so that there is something to adapt to."""
    rng = np.random.default_rng(seed)
    steps = np.where(rng.random(n_tokens) < 0.8, 3, rng.integers(0, vocab_size, n_tokens))
    tokens = (np.cumsum(steps) % vocab_size).astype(np.uint16)
    lengths = (1 + tokens[1:] % 4).astype(np.int32)
    return ValidationSet(tokens, lengths, np.zeros(1, np.int64), int(lengths.sum()))


def with_token(validation: ValidationSet, index: int, token: int) -> ValidationSet:
    """The same stream with one token changed (and the byte counts left alone)."""
    tokens = validation.tokens.copy()
    tokens[index] = token
    return ValidationSet(
        tokens, validation.byte_lengths, validation.documents, validation.true_bytes
    )
