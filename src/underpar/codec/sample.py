"""Text drawn from a model: the predictor of scorer and codec, with random numbers for a coder.

Temperature divides the logits; top-p keeps the likeliest tokens whose probabilities add up to p
(nucleus sampling, Holtzman et al., arXiv:1904.09751). BOS ends a document, so it ends the text.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from underpar.artifact.load import LoadedModel
from underpar.data.bytetokens import ByteTokens
from underpar.errors import DataError
from underpar.score.predictor import Stepwise


def sample(
    loaded: LoadedModel,
    prompt: str = "",
    *,
    tokens: int = 200,
    temperature: float = 0.8,
    top_p: float = 0.95,
    seed: int = 0,
) -> Iterator[str]:
    """Up to ``tokens`` tokens that continue ``prompt``, as pieces of text, as they are drawn.

    temperature 0 takes the likeliest token each time. Raises DataError for a prompt that the
    tokenizer cannot represent.
    """
    table, bos = ByteTokens(loaded.tokenizer), loaded.tokenizer.bos_id
    ids = table.encode(prompt.encode("utf-8", "surrogateescape"))
    if ids is None:
        raise DataError("prompt", got="characters that the tokenizer has no piece for")
    utf8 = codecs.getincrementaldecoder("utf-8")("replace")  # a character may take several tokens
    rng = np.random.default_rng(seed)
    spec, context = loaded.score, loaded.score.context or loaded.model.spec.seq_len
    predictor = Stepwise(loaded.model, context)
    seen = [bos, *ids.tolist()]
    logits, room = _begin(predictor, seen, context, min(spec.stride, context - 1))
    for _ in range(tokens):
        # a padded vocabulary has symbols at its end that no token stands for
        token = draw(logits[: loaded.tokenizer.vocab_size], temperature, top_p, rng)
        if token == bos:
            break
        seen.append(token)
        if piece := utf8.decode(table.decode(np.array([token], np.uint16))):
            yield piece
        room -= 1
        if room:
            logits = predictor.step(np.array([token], np.uint16))[0]
        else:
            logits, room = _begin(predictor, seen, context, min(spec.stride, context - 1))
    if piece := utf8.decode(b"", final=True):
        yield piece


def draw(logits: Tensor, temperature: float, top_p: float, rng: np.random.Generator) -> int:
    """One token from float logits [V]."""
    values = logits.double().cpu().numpy()
    if temperature <= 0:
        return int(values.argmax())
    p = np.exp((values - values.max()) / temperature)
    p /= p.sum()
    order = np.argsort(-p, kind="stable")
    kept = order[: int(np.searchsorted(np.cumsum(p[order]), top_p)) + 1]
    return int(rng.choice(kept, p=p[kept] / p[kept].sum()))


def _begin(predictor: Stepwise, seen: list[int], context: int, stride: int) -> tuple[Tensor, int]:
    """Logits after the newest tokens, and how many steps fit into the window from here."""
    window: NDArray[np.uint16] = np.array(seen[-(context - stride) :], np.uint16)
    return predictor.begin(window[None])[0], context - len(window) + 1
