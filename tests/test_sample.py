"""Sampling: the predictor that scores, and a die that can be loaded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.coding import TINY, bpe, tiny_file
from underpar.artifact.load import LoadedModel, load
from underpar.codec.sample import draw, sample
from underpar.errors import DataError
from underpar.score.predictor import Stepwise

PROMPT = "It was cold at the"


@pytest.fixture(scope="module")
def loaded(tiny_model: Path) -> LoadedModel:
    return load(tiny_model)


def written(loaded: LoadedModel, prompt: str = PROMPT, **how: Any) -> str:
    return "".join(sample(loaded, prompt, **how))


def greedy(loaded: LoadedModel, prompt: str, n: int) -> list[int]:
    """Window by window from the parallel path: as much past as the sliding score keeps."""
    predictor, context, stride = Stepwise(loaded.model, 32), 32, loaded.score.stride
    ids = [256, *prompt.encode()]
    start = max(len(ids) - (context - stride), 0)
    for _ in range(n):
        window = np.array(ids[start:], np.uint16)
        ids.append(int(predictor.predict([window], len(window) - 1)[0, 0].argmax()))
        if len(ids) - start > context:
            start = len(ids) - (context - stride)
    return ids[1 + len(prompt) :]


@pytest.mark.parametrize("prompt", ["", "a", PROMPT, PROMPT * 10])
def test_temperature_zero_takes_the_likeliest(loaded: LoadedModel, prompt: str) -> None:
    ids = greedy(loaded, prompt, 70)
    assert 256 not in ids
    text = written(loaded, prompt, tokens=70, temperature=0.0)
    assert text == bytes(ids).decode("utf-8", "replace")
    assert written(loaded, prompt, tokens=70, temperature=0.0, seed=3) == text


def test_a_seed_is_repeatable(loaded: LoadedModel) -> None:
    assert written(loaded, tokens=60, seed=1) == written(loaded, tokens=60, seed=1)
    assert written(loaded, tokens=60, seed=1) != written(loaded, tokens=60, seed=2)


def test_next_to_no_probability_is_greedy(loaded: LoadedModel) -> None:
    wanted = written(loaded, tokens=40, temperature=0.0)
    assert written(loaded, tokens=40, temperature=1.5, top_p=1e-9) == wanted
    assert written(loaded, tokens=40, temperature=1.5, top_p=0.0) == wanted
    assert written(loaded, tokens=40, temperature=1e-6, top_p=1.0) == wanted


def test_text_goes_on_past_the_context(nano_run: Any) -> None:
    model = load(nano_run["model.upar"])
    text = written(model, PROMPT * 20, tokens=300)
    assert len(text) > 200
    assert sum(c.isascii() for c in text) > 0.8 * len(text)


def test_pieces_are_whole_characters(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever bytes are drawn: a character comes once its last byte is there."""
    data = "a\u00e4\U0001f600\u3000".encode() + b"\xf0\x9f"
    left = list(data)
    monkeypatch.setattr("underpar.codec.sample.draw", lambda *_: left.pop(0))
    pieces = list(sample(loaded, tokens=len(data)))
    assert pieces == ["a", "\u00e4", "\U0001f600", "\u3000", "\ufffd"]


def test_the_end_of_a_document_is_the_end(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = [97, 98, 256, 99]
    monkeypatch.setattr("underpar.codec.sample.draw", lambda *_: left.pop(0))
    assert written(loaded) == "ab"


def test_with_a_sentencepiece_tokenizer(tmp_path: Path) -> None:
    # three symbols that no piece stands for, as padded models have them
    path = tiny_file(tmp_path / "m", tokenizer=bpe(), spec=replace(TINY, vocab_size=403))
    model = load(path)
    for prompt in ("", " a  b", "\u00e4 \U0001f600"):
        text = written(model, prompt, tokens=60, temperature=2.0, top_p=1.0)
        assert text.encode()
    with torch.no_grad():
        model.model.tok_emb.weight[:400] = 0
        model.model.tok_emb.weight[400:] = 9
    assert written(model, tokens=20, temperature=1.0, top_p=1.0)


def test_a_prompt_that_cannot_be_said(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("underpar.codec.sample.ByteTokens.encode", lambda self, data: None)
    with pytest.raises(DataError, match="prompt"):
        next(sample(loaded, "x"))


# --- the die ----------------------------------------------------------------------------------


def test_draws_follow_the_distribution() -> None:
    p = np.array([0.5, 0.25, 0.15, 0.1])
    logits = torch.tensor(np.log(p) + 3.0)
    rng = np.random.default_rng(0)

    def shares(temperature: float, top_p: float) -> np.ndarray:
        drawn = [draw(logits, temperature, top_p, rng) for _ in range(2000)]
        return np.bincount(drawn, minlength=4) / 2000

    np.testing.assert_allclose(shares(1.0, 1.0), p, atol=0.03)
    np.testing.assert_allclose(shares(1.0, 0.7), [2 / 3, 1 / 3, 0, 0], atol=0.03)
    hot = p**0.5 / (p**0.5).sum()
    np.testing.assert_allclose(shares(2.0, 1.0), hot, atol=0.03)
    assert shares(1.0, 0.4).tolist() == [1, 0, 0, 0]
    assert shares(0.0, 1.0).tolist() == [1, 0, 0, 0]
