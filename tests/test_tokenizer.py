"""Tokenizers: lossless where they say so, and byte counts that equal the decoder's, always."""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import sentencepiece as spm
from hypothesis import given, settings
from hypothesis import strategies as st

from underpar.data.corpus import generated_documents
from underpar.data.tokenizer import (
    ByteTokenizer,
    SentencePieceTokenizer,
    Tokenizer,
    load_tokenizer,
    tokenizer_from,
    train_bpe,
)
from underpar.errors import DataError

TEXTS = [d.text for d in generated_documents(0)]
#: characters that have broken a tokenizer somewhere, among ordinary ones
NASTY = st.text(
    alphabet="\u2581\u2585 \n\t\r\0a.B1\u00e9\u0301\ufb01\ufeff\u00a0\u200b\u3000\U0001f600"
)
ANY = st.text(st.characters(codec="utf-8"))


@cache
def bpe(lossless: bool = True) -> SentencePieceTokenizer:
    return train_bpe(TEXTS, 400, lossless=lossless)


@cache
def variant(dummy_prefix: bool, strip: bool, whitespace_pieces: bool) -> SentencePieceTokenizer:
    """A model with any mixture of the settings that touch spaces."""
    model = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter([*TEXTS, "a   b      c    d  \n        e\n" * 200]),
        model_writer=model,
        model_type="bpe",
        vocab_size=400,
        normalization_rule_name="identity",
        add_dummy_prefix=dummy_prefix,
        remove_extra_whitespaces=strip,
        allow_whitespace_only_pieces=whitespace_pieces,
        byte_fallback=True,
        minloglevel=2,
    )
    return SentencePieceTokenizer(model.getvalue())


def document(tokenizer: Tokenizer, text: str) -> np.ndarray:
    return np.concatenate([[tokenizer.bos_id], tokenizer.encode(text)]).astype(np.uint16)


def check(tokenizer: Tokenizer, text: str) -> None:
    ids = document(tokenizer, text)
    decoded = tokenizer.decode(ids)
    assert decoded == tokenizer.normalized(text)
    assert tokenizer.byte_lengths(ids).sum() == len(decoded.encode())
    if tokenizer.lossless:
        assert decoded == text


@pytest.mark.parametrize("make", [bpe, ByteTokenizer], ids=["sentencepiece", "bytes"])
def test_lossless_for_any_text(make: object) -> None:
    tokenizer = make()  # type: ignore[operator]
    assert tokenizer.lossless

    @settings(max_examples=150, deadline=None)
    @given(st.one_of(NASTY, ANY))
    def holds(text: str) -> None:
        check(tokenizer, text)

    holds()


@settings(max_examples=100, deadline=None)
@given(NASTY)
def test_normalizing_counts_what_it_decodes(text: str) -> None:
    tokenizer = bpe(lossless=False)
    assert not tokenizer.lossless
    check(tokenizer, text)


@pytest.mark.parametrize("dummy_prefix", [False, True])
@pytest.mark.parametrize("strip", [False, True])
@pytest.mark.parametrize("whitespace_pieces", [False, True])
def test_bytes_follow_the_decoder(dummy_prefix: bool, strip: bool, whitespace_pieces: bool) -> None:
    tokenizer = variant(dummy_prefix, strip, whitespace_pieces)
    assert tokenizer.lossless == (not dummy_prefix and not strip)
    for text in ("", " ", "a", " a", "   a  b", "a ", "\n  b\n", "a      b", TEXTS[0]):
        check(tokenizer, text)


def test_space_after_bos() -> None:
    """A text that begins with a space: counted where decoding keeps it, and only there."""
    ours, theirs = bpe(), bpe(lossless=False)
    for tokenizer, text in ((ours, " the"), (theirs, "the")):
        ids = [tokenizer.bos_id, *tokenizer.encode("x the")[1:].tolist()]
        assert tokenizer.decode(ids) == text
        assert tokenizer.byte_lengths(np.array(ids, np.uint16)).sum() == len(text)


def test_bos_as_target_has_no_bytes() -> None:
    for tokenizer in (bpe(), bpe(lossless=False), ByteTokenizer()):
        stream = np.concatenate([document(tokenizer, t) for t in ("one two", "three")])
        lengths = tokenizer.byte_lengths(stream)
        assert lengths.dtype == np.int32
        assert lengths[stream[1:] == tokenizer.bos_id].tolist() == [0]
        assert lengths.sum() == len("one twothree")


def test_slow_twin_of_the_tables() -> None:
    """Bytes of a token = what decoding grows by when it is appended."""
    for tokenizer in (bpe(), bpe(lossless=False)):
        text = "When Ann came to the old mill, in 1873.\n\nNo  fog"
        ids = document(tokenizer, text)
        sizes = [len(tokenizer.decode(ids[:i]).encode()) for i in range(1, len(ids) + 1)]
        assert tokenizer.byte_lengths(ids).tolist() == np.diff(sizes).tolist()


def test_digits_are_split_and_newlines_learned() -> None:
    tokenizer = train_bpe(["In 1873 we met.\n\nIn 1873 we parted.\n\n" * 20] * 3, 300)
    assert len(tokenizer.encode("1873")) == 4
    assert len(tokenizer.encode(".\n\n")) == 1


def test_training_is_silent_and_repeatable(capfd: pytest.CaptureFixture[str]) -> None:
    again = train_bpe(iter(TEXTS), 400)
    assert again.to_bytes() == bpe().to_bytes()
    assert again.fingerprint() == bpe().fingerprint() != bpe(lossless=False).fingerprint()
    assert (again.vocab_size, again.bos_id) == (400, 1)
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")


def test_no_document_is_dropped_from_training() -> None:
    """The library drops sentences with U+2585 and long ones; every word here must be learned."""
    texts = [f"{' '.join(TEXTS[:4])}\u2585 {'zyzzyva ' * 99}\u2581" for _ in range(3)]
    tokenizer = train_bpe(texts, 360)
    assert len(tokenizer.encode(" zyzzyva")) == 1
    check(tokenizer, texts[0])


def test_text_without_spaces_still_gets_a_space_piece() -> None:
    tokenizer = train_bpe(["abcabcabdabe" * 20] * 3, 270)
    assert tokenizer.lossless
    check(tokenizer, " a b  \u2581 ")


@pytest.mark.parametrize(
    ("texts", "vocab", "message"),
    [
        ([], 300, "no text"),
        (["", ""], 300, "no text"),
        (TEXTS, 200, r"got 200, wanted at least \d+"),
        (["aaab"], 400, r"text for \d+ only.*Lower model.vocab_size"),
    ],
)
def test_training_errors(texts: list[str], vocab: int, message: str) -> None:
    with pytest.raises(DataError, match=message):
        train_bpe(texts, vocab)


@pytest.mark.parametrize("make", [bpe, ByteTokenizer], ids=["sentencepiece", "bytes"])
def test_refuses_what_is_not_its_own(make: object) -> None:
    tokenizer = make()  # type: ignore[operator]
    with pytest.raises(DataError, match="lone surrogate U\\+D800 at character 2"):
        tokenizer.encode("ab\ud800")
    foreign = np.array([0, tokenizer.vocab_size], np.uint16)
    with pytest.raises(DataError, match=f"got id {tokenizer.vocab_size}"):
        tokenizer.byte_lengths(foreign)
    with pytest.raises(DataError, match="do not belong"):
        tokenizer.decode(foreign)


def test_bytes_decode_of_broken_utf8() -> None:
    assert ByteTokenizer().decode([256, 0xC3, 0x41, 256]) == "\ufffdA"


def test_round_trip_of_the_model(tmp_path: Path) -> None:
    for tokenizer in (bpe(), ByteTokenizer()):
        again = tokenizer_from(tokenizer.kind, tokenizer.to_bytes())
        assert again.fingerprint() == tokenizer.fingerprint()
        assert again.encode("Ann").tolist() == tokenizer.encode("Ann").tolist()
    path = tmp_path / "x.model"
    path.write_bytes(bpe().to_bytes())
    assert load_tokenizer(path).fingerprint() == load_tokenizer(path.read_bytes()).fingerprint()
    with pytest.raises(DataError, match=r"kind.*'words'"):
        tokenizer_from("words", b"")
    model = bpe().to_bytes()
    not_utf8 = model.replace("\u2581".encode(), b"\xff\xff\xff", 1)
    for bad in (b"", b"garbage", model[:-7], not_utf8):
        with pytest.raises(DataError, match="cannot read"):
            load_tokenizer(bad)
    with pytest.raises(DataError, match="No such file"):
        load_tokenizer(tmp_path / "nothing.model")
