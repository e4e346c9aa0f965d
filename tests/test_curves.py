"""Losses of a run: kept, found again, and held against the record they belong to."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from underpar.bits import LN2, Score
from underpar.data.tokenizer import ByteTokenizer
from underpar.data.validation import ValidationSet
from underpar.recipe.schema import Recipe
from underpar.report import curves
from underpar.report.record import Record

BOS = ByteTokenizer.bos_id


def stream(*texts: str) -> ValidationSet:
    tokenizer = ByteTokenizer()
    parts = [np.append(BOS, tokenizer.encode(text)) for text in texts]
    return ValidationSet.from_tokens(np.concatenate(parts), tokenizer)


DATA = stream("abcd", "ef")
NLL = (LN2 * np.array([1, 2, 3, 4, 5, 6, 7])).astype(np.float32)  # the fifth is the second BOS


def record(nll: np.ndarray) -> Record:
    score = Score(nats=float(nll.sum()), tokens=7, bytes=6, coverage=1.0)
    return Record.start(Recipe()).with_stage("ttt", score)


def test_losses_come_back_and_nothing_else_does(tmp_path: Path) -> None:
    curves.save_losses(tmp_path, "ttt", NLL)
    np.save(tmp_path / "nll_sliding.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.save(tmp_path / "nll_quantized.npy", np.ones((2, 2)))
    (tmp_path / "nll_float.npy").write_bytes(b"")
    found = curves.load_losses(tmp_path)
    assert list(found) == ["ttt"]
    assert found["ttt"].dtype == np.float32
    np.testing.assert_allclose(found["ttt"], NLL, rtol=1e-3)
    assert curves.load_losses(tmp_path / "nowhere") == {}


def test_only_losses_of_the_record_count() -> None:
    known = record(NLL)
    assert list(curves.of_record({"ttt": NLL, "float": NLL}, known, DATA)) == ["ttt"]
    partial = NLL.copy()
    partial[2] = np.nan
    for other in (NLL * 1.01, NLL[:-1], np.append(NLL, 0), partial):
        assert curves.of_record({"ttt": other}, known, DATA) == {}


def test_documents_add_up_to_the_score() -> None:
    bpb = curves.by_document(NLL, DATA)
    assert bpb.tolist() == pytest.approx([10 / 4, 18 / 2])
    assert (bpb @ [4, 2]) / 6 == pytest.approx(record(NLL).stages["ttt"].bpb)


def test_pieces_of_the_stream_add_up_to_the_score() -> None:
    at, bpb = curves.along(NLL, DATA, 1)
    assert at.tolist() == [3]
    assert bpb.tolist() == pytest.approx([28 / 6])
    assert curves.along(NLL, DATA, 7)[1].tolist() == pytest.approx(
        [1, 2, 3, 4, np.nan, 6, 7], nan_ok=True
    )
    at, saved = curves.saved_so_far(NLL, NLL / 2, DATA, 3)
    assert saved.tolist() == pytest.approx([50, 50, 50])
    assert at[-1] == 6


def test_training_curves_survive_a_resumed_and_damaged_file(tmp_path: Path) -> None:
    rows = [
        {"step": 1, "loss": 9.0, "lr_scale": 1.0},
        {"step": 2, "loss": 8.0, "lr_scale": 1.0},
        {"step": 2, "nats": 30.0, "tokens": 10, "coverage": 1.0},
        {"step": 2, "nats": 90.0, "tokens": 10, "coverage": 0.5},
        {"step": 2, "loss": 7.0, "lr_scale": 0.5},
        {"step": 3, "loss": float("nan"), "lr_scale": 0.1},
        {"other": 1},
    ]
    lines = [*map(json.dumps, rows), "[1]", "7", '{"step": 4, "lo']
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    got = curves.read_training(tmp_path)
    assert [v.tolist() for v in got.loss] == [[1, 2], [9, 7]]
    assert [v.tolist() for v in got.scale] == [[1, 2, 3], [1, 0.5, 0.1]]
    assert [v.tolist() for v in got.validation] == [[2], [3]]
    assert len(curves.read_training(tmp_path / "nowhere").loss[0]) == 0
