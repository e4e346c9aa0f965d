"""Any bytes come back, whatever the tokenizer; ordinary text costs what its tokens cost."""

from __future__ import annotations

import io
from functools import cache
from typing import Any

import numpy as np
import pytest
import sentencepiece as spm
from hypothesis import given, settings
from hypothesis import strategies as st

from underpar.data.bytetokens import ByteTokens
from underpar.data.corpus import generated_documents
from underpar.data.tokenizer import (
    ByteTokenizer,
    SentencePieceTokenizer,
    Tokenizer,
    train_bpe,
)
from underpar.errors import DataError

TEXTS = [d.text for d in generated_documents(0)]
#: bytes and characters that have broken a tokenizer somewhere, among ordinary ones
NASTY_PARTS = (
    *("the", " mill", " ", "  ", "\n", "\r\n", "\t", "\0", "a", "B", "1", "</s>", "<0x41>"),
    *("\u2581", "\u2585", "\u00e9", "e\u0301", "\ufb01", "\ufeff", "\u00a0", "\u200b", "\u3000"),
    *("\U0001f600", "\udc80", "\udced\udca0\udc80", "\udcff\udcfe", "\udcc3", "\udce2\udc96"),
)
NASTY = st.lists(st.sampled_from(NASTY_PARTS)).map(
    lambda parts: "".join(parts).encode("utf-8", "surrogateescape")
)
ANY_TEXT = st.text(st.characters(codec="utf-8"))
ANY = st.one_of(NASTY, st.binary(), ANY_TEXT.map(str.encode))


@cache
def lossless() -> Tokenizer:
    return train_bpe(TEXTS, 400)


@cache
def competition() -> Tokenizer:
    return train_bpe(TEXTS, 400, lossless=False)


def variant(**options: Any) -> SentencePieceTokenizer:
    model = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS),
        model_writer=model,
        model_type="bpe",
        vocab_size=400,
        minloglevel=2,
        **options,
    )
    return SentencePieceTokenizer(model.getvalue())


@cache
def dummy_prefix() -> Tokenizer:
    return variant(
        byte_fallback=True,
        add_dummy_prefix=True,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
    )


@cache
def case_folding() -> Tokenizer:
    return variant(byte_fallback=True, normalization_rule_name="nmt_nfkc_cf")


@cache
def no_byte_fallback() -> Tokenizer:
    return variant(byte_fallback=False, add_dummy_prefix=False)


MAKERS = [lossless, competition, dummy_prefix, case_folding, ByteTokenizer]
each_tokenizer = pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)


@cache
def code(make: object) -> ByteTokens:
    return ByteTokens(make())  # type: ignore[operator]


def tokens_of(make: object, data: bytes) -> np.ndarray:
    tokens = code(make).encode(data)
    assert tokens is not None
    assert tokens.dtype == np.uint16
    return tokens


@each_tokenizer
def test_any_bytes_come_back(make: object) -> None:
    @settings(max_examples=150, deadline=None)
    @given(ANY)
    def holds(data: bytes) -> None:
        tokens = tokens_of(make, data)
        assert code(make).decode(tokens) == data
        assert len(tokens) <= len(data)

    holds()


@each_tokenizer
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b" ",
        b"  the  old mill ",
        b"\r\n\r\n the\r\n",
        b"\0\0a\0",
        "\u2581a \u2581\u2581".encode(),
        "\ud800".encode("utf-8", "surrogatepass"),
        b"the\xffold\xfe mill\xe2\x96",
        "\ufeffthe \ufb01rst e\u0301".encode(),
        bytes(range(256)),
    ],
)
def test_what_has_broken_tokenizers(make: object, data: bytes) -> None:
    assert code(make).decode(tokens_of(make, data)) == data


@pytest.mark.parametrize("make", [lossless, ByteTokenizer])
def test_valid_text_has_the_tokens_of_the_score(make: object) -> None:
    tokenizer: Tokenizer = make()  # type: ignore[operator]

    @settings(max_examples=100, deadline=None)
    @given(ANY_TEXT)
    def holds(text: str) -> None:
        tokens = tokens_of(make, text.encode())
        assert tokens.tolist() == tokenizer.encode(text).tolist()
        stream = np.concatenate([[tokenizer.bos_id], tokens]).astype(np.uint16)
        assert tokenizer.byte_lengths(stream).sum() == len(text.encode())

    holds()
    for text in TEXTS:
        assert tokens_of(make, text.encode()).tolist() == tokenizer.encode(text).tolist()


def test_broken_bytes_leave_the_text_around_them_alone() -> None:
    tokenizer = lossless()
    left, right = (tokenizer.encode(t).tolist() for t in ("the old", " mill"))
    found = tokens_of(lossless, b"the old\xff\xfe mill").tolist()
    assert found[: len(left)] == left
    assert found[len(left) + 2 :] == right
    assert tokenizer.byte_lengths(np.array(found)).tolist()[len(left) - 1 :][:2] == [1, 1]


def test_a_normalising_tokenizer_loses_little() -> None:
    """Line ends and folded characters cost a token per byte, the words between them nothing."""
    tokenizer = competition()
    for text in TEXTS:
        assert "\n" in text
        ideal = sum(len(tokenizer.encode(line)) for line in text.split("\n"))
        assert len(tokens_of(competition, text.encode())) <= ideal + text.count("\n")
    plain = tokenizer.encode("the old mill").tolist()
    folded = tokens_of(competition, "the old mill\u2026 the old mill".encode()).tolist()
    assert folded[: len(plain)] == folded[-len(plain) :] == plain
    assert len(folded) == 2 * len(plain) + len("\u2026 ".encode())


def test_a_dummy_prefix_stands_for_a_space() -> None:
    line = "\n the old mill"
    ideal = 1 + len(dummy_prefix().encode("the old mill"))
    assert len(tokens_of(dummy_prefix, line.encode())) <= ideal + 1


def test_none_where_a_byte_cannot_be_said() -> None:
    found = code(no_byte_fallback)
    for data in (b"\xff", "the \U0001f600".encode(), b"the\n", b"\0"):
        assert found.encode(data) is None
    for data in (b"", b"the old mill", b"  the   old mill "):
        tokens = found.encode(data)
        assert tokens is not None
        assert found.decode(tokens) == data

    @settings(max_examples=50, deadline=None)
    @given(ANY)
    def holds(data: bytes) -> None:
        tokens = found.encode(data)
        assert tokens is None or found.decode(tokens) == data

    holds()


@each_tokenizer
def test_control_ids_have_no_bytes_and_foreign_ids_are_refused(make: object) -> None:
    tokenizer: Tokenizer = make()  # type: ignore[operator]
    tokens = np.concatenate([[tokenizer.bos_id], tokens_of(make, b"a\xff"), [tokenizer.bos_id]])
    assert code(make).decode(tokens) == b"a\xff"
    for foreign in (tokenizer.vocab_size, -1):
        with pytest.raises(DataError, match=f"wanted 0 to {tokenizer.vocab_size - 1}"):
            code(make).decode(np.array([0, foreign]))


@each_tokenizer
def test_the_work_grows_with_the_text_alone(make: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """No character is tokenized more than a few times, however much must be mended."""
    tokenizer: Tokenizer = make()  # type: ignore[operator]
    slow = ByteTokens(tokenizer)
    seen = 0
    encode = tokenizer.encode

    def counted(text: str) -> np.ndarray:
        nonlocal seen
        seen += len(text)
        return encode(text)

    monkeypatch.setattr(tokenizer, "encode", counted, raising=False)
    for part in ("  ", "\u2026 ", "e\u0301 ", "e\u0301", " the\n", "\u2581a", "A b"):
        for times in (300, 3000):
            seen, text = 0, part * times
            tokens = slow.encode(text.encode())
            assert tokens is not None
            assert slow.decode(tokens) == text.encode()
            assert seen <= 6 * len(text) + 3 * len(set(text))
