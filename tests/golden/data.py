"""Byte tables: counts for stored ids, and the tables of the tokenizer model where it is at hand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tests.golden import Check, equal
from underpar.data.tokenizer import ByteTables, load_tokenizer
from underpar.data.validation import ValidationSet


def byte_lut(path: Path) -> Iterator[Check]:
    """The arithmetic on the stored tables, then everything that needs the model."""
    with np.load(path, allow_pickle=False) as data:
        golden = {key: data[key] for key in data.files}
    tables = ByteTables(golden["base_bytes"], golden["has_leading_space"], golden["is_boundary"])
    cases = sorted(key.removeprefix("ids/") for key in golden if key.startswith("ids/"))
    for case in cases:
        lengths = tables.lengths(golden[f"ids/{case}"])
        yield equal(f"byte_lut lut_bytes/{case}", lengths.sum(), golden[f"lut_bytes/{case}"])
        if f"token_bytes/{case}" in golden:
            yield equal(f"byte_lut token_bytes/{case}", lengths, golden[f"token_bytes/{case}"])

    name = f"fineweb_{len(tables.base)}_bpe.model"
    model = path.resolve().parent.parent / "tokenizers" / name
    if not model.exists():
        yield Check("byte_lut model", None, note=f"no {model}")
        return
    yield from with_model(model, golden, cases)


def with_model(model: Path, golden: dict[str, np.ndarray], cases: list[str]) -> Iterator[Check]:
    tokenizer = load_tokenizer(model)
    ours = tokenizer.tables()
    yield equal("byte_lut table base_bytes", ours.base, golden["base_bytes"])
    yield equal("byte_lut table has_leading_space", ours.lead, golden["has_leading_space"])
    yield equal("byte_lut table is_boundary", ours.boundary, golden["is_boundary"])
    for case in cases:
        ids = golden[f"ids/{case}"]
        checked = ValidationSet.from_tokens(ids, tokenizer)  # refuses if decoding disagrees
        yield equal(f"byte_lut decoded/{case}", checked.true_bytes, golden[f"lut_bytes/{case}"])
        if f"decoded_bytes/{case}" in golden:
            n_bytes = len(tokenizer.decode(ids).encode("utf-8"))
            yield equal(f"byte_lut decode/{case}", n_bytes, golden[f"decoded_bytes/{case}"])
        if f"text_utf8/{case}" in golden:
            text = golden[f"text_utf8/{case}"].tobytes()
            encoded = tokenizer.encode(text.decode("utf-8"))
            yield equal(f"byte_lut encode/{case}", encoded, ids[1:])
            yield equal(f"byte_lut true_bytes/{case}", len(text), golden[f"true_bytes/{case}"])


CHECKS = {"byte_lut.npz": byte_lut}
