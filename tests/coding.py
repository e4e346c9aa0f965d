"""A tiny model's file and all sorts of texts for the tests of the codec.

As a program, ``python -m tests.coding write|read MODEL FOLDER [COUNT]``, it is one side of a test
in which no process sees what the other has computed.
"""

from __future__ import annotations

import io
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from unittest.mock import patch

from hypothesis import strategies as st

from tests.scoring import small_model
from underpar.artifact.pack import pack
from underpar.codec import text as codec
from underpar.codec.text import Options, Report
from underpar.data.corpus import generated_documents
from underpar.data.tokenizer import ByteTokenizer, Tokenizer, train_bpe
from underpar.recipe.schema import ModelSpec, ScoreSpec

TINY = ModelSpec(vocab_size=257, seq_len=32, n_layer=1, d_model=8, n_head=1, n_kv_head=1, d_ff=8)
#: learns fast, and knows nothing: a text costs 8 bits a byte or more, and half of that in the end
LEARNS = ScoreSpec(stride=16, ttt_chunk=64, ttt_lr=0.5, ttt_epochs=2, ttt_batch=4, dtype="float32")

_NASTY = (
    *(b"the", b" mill", b" ", b"  ", b"\n", b"\r\n", b"\t", b"\0", b"a", b"</s>", b"<0x41>"),
    *(
        c.encode()
        for c in ("\u2581", "\u00e9", "e\u0301", "\ufb01", "\ufeff", "\u3000", "\U0001f600")
    ),
    *(b"\x80", b"\xed\xa0\x80", b"\xff\xfe", b"\xc3", b"\xe2\x96"),
)
_NASTY_TEXT = st.lists(st.sampled_from(_NASTY), max_size=40).map(b"".join)
_RUN = st.builds(lambda unit, n: unit * n, st.binary(min_size=1, max_size=3), st.integers(1, 60))
_ONE = st.one_of(_NASTY_TEXT, st.binary(max_size=90), st.text(max_size=50).map(str.encode), _RUN)
#: bytes, Unicode, long runs, what breaks tokenizers, and mixtures
ANY = st.one_of(_ONE, st.lists(_ONE, max_size=3).map(b"".join))
OPTIONS = st.builds(
    Options,
    adapt=st.booleans(),
    exact=st.sampled_from((False, False, False, True)),
    portable=st.booleans(),
    lanes=st.sampled_from((0, 2, 3, 8, 11)),
    block_bytes=st.sampled_from((0, 50, 1 << 20)),
)


def tiny_file(
    path: Path, *, seed: int = 0, tokenizer: Tokenizer | None = None, spec: ModelSpec = TINY
) -> Path:
    """An artifact of some 9 kB, of random weights."""
    pack(
        path,
        {name: weight.detach() for name, weight in small_model(spec, seed).named_parameters()},
        model_spec=spec,
        score_spec=LEARNS,
        looping=False,
        dtype="float32",
        tokenizer=tokenizer or ByteTokenizer(),
        recipe_digest="0" * 64,
        compressor="lzma",
        byte_shuffle=False,
    )
    return path


@cache
def _all_prose() -> bytes:
    return "\n".join(document.text for document in generated_documents(77)).encode()


def prose(n: int) -> bytes:
    """The first n bytes of something to read."""
    text = _all_prose()
    assert len(text) >= n
    return text[:n]


@contextmanager
def always_coded() -> Iterator[None]:
    """Blocks go through the model even where that makes them larger."""
    with patch.multiple(codec, _MODEL_OVERHEAD=-(1 << 30), _compressible=lambda text: True):
        yield


@cache
def bpe(lossless: bool = True) -> Tokenizer:
    """400 pieces."""
    return train_bpe([d.text for d in generated_documents(0)], 400, lossless=lossless)


DEFAULT = Options()


def compressed(text: bytes, model: Path, options: Options = DEFAULT) -> tuple[bytes, Report]:
    out = io.BytesIO()
    report = codec.compress(io.BytesIO(text), out, model, options)
    return out.getvalue(), report


def decompressed(file: bytes, model: Path | None, *, force: bool = False) -> bytes:
    out = io.BytesIO()
    codec.decompress(io.BytesIO(file), out, model, force=force)
    return out.getvalue()


def some_text(rng: random.Random) -> bytes:
    """What ``ANY`` draws, without hypothesis: the same in every process."""
    kind, n = rng.randrange(5), rng.randrange(90)
    if kind == 0:
        return rng.randbytes(n)
    if kind == 1:
        return rng.randbytes(1 + n % 3) * n
    if kind == 2:
        return "".join(chr(rng.randrange(0x20, 0xD800)) for _ in range(n)).encode()
    if kind == 3:
        start = rng.randrange(1000)
        return prose(start + n)[start:]
    return b"".join(rng.choices(_NASTY, k=n // 2))


def some_options(rng: random.Random) -> Options:
    return Options(
        adapt=rng.random() < 0.7,
        exact=rng.random() < 0.2,
        portable=rng.random() < 0.2,
        lanes=rng.choice((0, 3, 8, 11)),
        block_bytes=rng.choice((0, 40, 1 << 20)),
    )


def write(model: Path, folder: Path, count: int) -> None:
    """``count`` texts and their compressed files, most of them coded by the model."""
    rng = random.Random(1)
    for i in range(count):
        text = some_text(rng)
        (folder / f"{i}.text").write_bytes(text)
        if i % 5:
            with always_coded():
                file, _ = compressed(text, model, some_options(rng))
        else:
            file, _ = compressed(text, model, some_options(rng))
        (folder / f"{i}.up").write_bytes(file)


def read(model: Path, folder: Path) -> None:
    """Decompress every file to ``.back``."""
    for file in folder.glob("*.up"):
        file.with_suffix(".back").write_bytes(decompressed(file.read_bytes(), model))


if __name__ == "__main__":
    side, artifact, place, *number = sys.argv[1:]
    if side == "write":
        write(Path(artifact), Path(place), int(number[0]))
    else:
        read(Path(artifact), Path(place))
