"""A validation set exists only with the right byte count."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from underpar.data.corpus import generated_documents
from underpar.data.shards import write_shard
from underpar.data.tokenizer import ByteTables, ByteTokenizer, Tokenizer, train_bpe
from underpar.data.validation import ValidationSet
from underpar.errors import DataError

TEXTS = [" one  two\n", "", "caf\u00e9 \U0001f600", "  x"]


@cache
def bpe(lossless: bool) -> Tokenizer:
    return train_bpe([d.text for d in generated_documents(0)], 400, lossless=lossless)


def stream(tokenizer: Tokenizer, texts: list[str]) -> np.ndarray:
    parts = [np.append(np.uint16(tokenizer.bos_id), tokenizer.encode(t)) for t in texts]
    return np.concatenate(parts)


def test_lossless_counts_the_raw_text() -> None:
    sizes = [len(t.encode()) for t in TEXTS]
    for tokenizer in (bpe(True), ByteTokenizer()):
        tokens = stream(tokenizer, TEXTS)
        validation = ValidationSet.from_tokens(tokens, tokenizer, document_bytes=sizes)
        assert validation.true_bytes == validation.raw_bytes == sum(sizes)
        assert not validation.normalized
        assert validation.n_targets == len(tokens) - 1 == len(validation.byte_lengths)
        assert (validation.tokens[validation.documents] == tokenizer.bos_id).all()
        assert len(validation.documents) == len(TEXTS)


def test_normalizing_reports_both_counts() -> None:
    tokenizer = bpe(False)
    sizes = [len(t.encode()) for t in TEXTS]
    validation = ValidationSet.from_tokens(
        stream(tokenizer, TEXTS), tokenizer, document_bytes=sizes
    )
    assert validation.normalized
    assert validation.raw_bytes == sum(sizes)
    assert validation.true_bytes == len("one two" + "caf\u00e9 \U0001f600" + "x") + 4


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8")), min_size=2), st.booleans())
def test_counts_any_documents(texts: list[str], lossless: bool) -> None:
    tokenizer = bpe(lossless)
    validation = ValidationSet.from_tokens(stream(tokenizer, texts), tokenizer)
    assert validation.true_bytes == sum(len(tokenizer.normalized(t).encode()) for t in texts)


def test_is_immutable() -> None:
    tokens = stream(ByteTokenizer(), TEXTS)
    validation = ValidationSet.from_tokens(tokens, ByteTokenizer())
    tokens[1] = 65  # the caller's array is not the set's
    assert validation.tokens[1] == ord(" ")
    for array in (validation.tokens, validation.byte_lengths, validation.documents):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
    with pytest.raises(AttributeError):
        validation.true_bytes = 1  # type: ignore[misc]


@pytest.mark.parametrize("n", [0, 1])
def test_nothing_to_predict(n: int) -> None:
    with pytest.raises(DataError, match=f"nothing to predict.*got {n} token"):
        ValidationSet.from_tokens(np.full(n, 256, np.uint16), ByteTokenizer())


def test_refuses_wrong_sums() -> None:
    good = ValidationSet.from_tokens(stream(ByteTokenizer(), ["ab"]), ByteTokenizer())
    for true_bytes, raw in ((3, None), (2, 5)):
        with pytest.raises(DataError, match="bytes of the tokens are not the bytes of"):
            ValidationSet(good.tokens, good.byte_lengths, good.documents, true_bytes, False, raw)
    with pytest.raises(DataError, match="one for each of 2 targets"):
        ValidationSet(good.tokens, good.byte_lengths[:1], good.documents, 1)


def test_refuses_text_that_is_not_the_raw_text() -> None:
    tokens = stream(ByteTokenizer(), ["ab", "cd"])
    with pytest.raises(DataError, match=r"raw text of validation document 1: got 2, wanted 3"):
        ValidationSet.from_tokens(tokens, ByteTokenizer(), document_bytes=[2, 3])
    with pytest.raises(DataError, match="got 2 documents, wanted 1"):
        ValidationSet.from_tokens(tokens, ByteTokenizer(), document_bytes=[4])


def test_refuses_streams_whose_bytes_cannot_be_right() -> None:
    tokenizer = bpe(True)
    eos = np.array([tokenizer.bos_id, 3, 3])  # unknown pieces decode to text of no bytes
    with pytest.raises(DataError, match="validation document 0"):
        ValidationSet.from_tokens(eos, tokenizer)
    half = stream(tokenizer, ["\U0001f600"])[:-1]  # cut inside a character
    with pytest.raises(DataError, match="validation document 0"):
        ValidationSet.from_tokens(half, tokenizer)
    with pytest.raises(DataError, match=r"first token.*wanted BOS"):
        ValidationSet.from_tokens(stream(tokenizer, ["abc"])[1:], tokenizer)
    with pytest.raises(DataError, match="do not belong"):
        ValidationSet.from_tokens(np.array([1, 400], np.int64), tokenizer)
    with pytest.raises(DataError, match="do not belong"):
        ValidationSet.from_tokens(np.array([1, 65_536 + 5], np.int64), tokenizer)


def test_catches_a_wrong_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counting the space after BOS as free, as published tables do, is wrong for our models."""
    tokenizer = bpe(True)
    right = tokenizer.tables()
    control = np.arange(len(right.base)) < 4
    wrong = ByteTables(right.base, right.lead, control)
    monkeypatch.setattr(tokenizer, "tables", lambda: wrong)
    ValidationSet.from_tokens(stream(tokenizer, ["no space in front"]), tokenizer)
    with pytest.raises(DataError, match="validation document 1: got 1, wanted 2"):
        ValidationSet.from_tokens(stream(tokenizer, ["a", " b"]), tokenizer)


def test_from_shards_joins_documents_across_files(tmp_path: Path) -> None:
    tokenizer = bpe(True)
    tokens = stream(tokenizer, TEXTS)
    files = [tmp_path / "a.bin", tmp_path / "b.bin"]
    write_shard(files[0], tokens[:3])
    write_shard(files[1], tokens[3:])
    validation = ValidationSet.from_shards(files, tokenizer)
    assert validation.tokens.tolist() == tokens.tolist()
    with pytest.raises(DataError, match="nothing to predict"):
        ValidationSet.from_shards([], tokenizer)
