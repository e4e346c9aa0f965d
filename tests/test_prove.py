"""A proof holds for an honest score and for no other."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.coding import decompressed, prose
from tests.commands import Run, byte_data, slow, underpar
from underpar.bits import LN2, Score
from underpar.codec import prove as module
from underpar.codec.prove import Proof, prove
from underpar.codec.text import Options
from underpar.data.build import open_dataset
from underpar.data.validation import ValidationSet
from underpar.errors import CodecError, DataError
from underpar.progress import Progress
from underpar.score.file import score
from underpar.score.scorer import Result


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two held-out documents: there is a BOS in the middle, which no byte stands for."""
    text = prose(9000).decode()
    return byte_data(tmp_path_factory.mktemp("held-out") / "data", text[:2000], text[2000:])


def validation(data: Path, n: int) -> ValidationSet:
    return open_dataset(data).validation().beginning(n)


@pytest.fixture
def near(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decode in this process: what a fresh one does is for other tests."""
    monkeypatch.setattr(module, "_decoded_elsewhere", decompressed)


# --- honest scores ----------------------------------------------------------------------------


@pytest.mark.parametrize("adapts", [False, slow(True)])  # an optimizer takes long to be imported
def test_a_score_is_proven(
    nano_run: Run, data: Path, adapts: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fresh process, lanes, adaptation: the whole of it, from the command line."""
    told = set[str]()
    monkeypatch.setattr(Progress, "update", lambda _, task, *rest: told.add(task))
    answer = tmp_path / "proof.json"
    words = ["--data", data, "--lanes", 16, "--tokens", 3000, "--json", answer]
    words += [] if adapts else ["--no-adapt"]
    done = underpar("prove", nano_run["model.upar"], *words)
    assert done.code == 0, done.err
    assert done.err.rstrip().endswith("PROVEN")
    assert "NOT PROVEN" not in done.err
    how, stage = ("adapting", "ttt") if adapts else ("not adapting", "sliding")
    assert f"16 lanes, {how}; 3,000 tokens, 2,999 bytes of text" in done.err
    proof = json.loads(answer.read_text())
    assert proof["holds"] is proof["text_same"] is True
    assert proof["adapts"] is adapts
    assert (proof["lanes"], proof["claim"]["tokens"], proof["claim"]["bytes"]) == (16, 3000, 2999)
    assert abs(proof["difference"]) <= 1e-3
    assert proof["coded_bits"] == pytest.approx(proof["claimed_bits"], rel=1e-3)
    assert proof["claimed_bits"] == pytest.approx(proof["claim"]["nats"] / LN2)
    assert 8 * proof["file_bytes"] > proof["coded_bits"]
    assert f"{proof['coded_bits']:,} bits" in done.err
    assert {"compress", "decompress", f"scoring ({stage})"} <= told, "the other process tells, too"


@pytest.mark.usefixtures("near")
@pytest.mark.parametrize(
    ("options", "n"),
    [
        pytest.param(Options(exact=True), 2700, marks=pytest.mark.slow),
        pytest.param(Options(exact=True, adapt=False), 2200, marks=pytest.mark.slow),
        (Options(lanes=16, adapt=False), 3000),
        (Options(lanes=12), 2500),
        pytest.param(
            Options(), 2700, marks=pytest.mark.slow
        ),  # one lane: the length is not enough for two
    ],
    ids=["exact", "exact, fixed", "lanes, fixed", "lanes", "by length"],
)
def test_in_every_mode(tiny_model: Path, data: Path, options: Options, n: int) -> None:
    stream = validation(data, n)
    proof = prove(tiny_model, stream, options)
    assert proof.holds, proof.lines()
    assert proof.lanes == (0 if options.exact else options.lanes or 1)
    assert (proof.claim.tokens, proof.claim.bytes) == (n, stream.true_bytes)
    if options.exact:  # the claim is the official score
        stage = "ttt" if options.adapt else "sliding"
        assert proof.claim.nats == score(tiny_model, stream, stage).score.nats  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize("adapt", [False, True])
@pytest.mark.parametrize("exact", [False, True])
def test_a_trained_model_in_every_mode(nano_run: Run, data: Path, exact: bool, adapt: bool) -> None:
    stream = validation(data, 9000)
    assert prove(nano_run["model.upar"], stream, Options(exact=exact, adapt=adapt)).holds


@pytest.mark.slow
def test_portable(tiny_model: Path, data: Path) -> None:
    proof = prove(tiny_model, validation(data, 9000), Options(portable=True, lanes=16))
    assert proof.text_same
    assert not proof.adapts


# --- others -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("near")
@pytest.mark.parametrize("factor", [0.99, pytest.param(1.01, marks=pytest.mark.slow)])
def test_a_claim_that_is_not_the_models(
    tiny_model: Path, data: Path, monkeypatch: pytest.MonkeyPatch, factor: float
) -> None:
    def tampered(*arguments: object, **options: object) -> Result:
        result = score(*arguments, **options)  # type: ignore[arg-type]
        return replace(result, score=replace(result.score, nats=factor * result.score.nats))

    monkeypatch.setattr(module, "score", tampered)
    proof = prove(tiny_model, validation(data, 2000), Options(lanes=16))
    assert proof.text_same
    assert not proof.holds
    assert proof.difference == pytest.approx(1 / factor - 1, abs=1e-3)
    assert proof.lines()[-1] == "NOT PROVEN"
    done = underpar("prove", tiny_model, "--data", data, "--lanes", 16, "--tokens", 2000)
    assert done.code == 1
    assert "NOT PROVEN" in done.err
    assert "Traceback" not in done.err


def test_a_text_that_is_not_the_same(
    tiny_model: Path, data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "_decoded_elsewhere", lambda coded, artifact: b"another")
    answer = tmp_path / "proof.json"
    words = ("--data", data, "--lanes", 16, "--tokens", 2000, "--json", answer)
    done = underpar("prove", tiny_model, *words)
    assert done.code == 1
    assert "ANOTHER TEXT" in done.err
    proof = json.loads(answer.read_text())
    assert (proof["text_same"], proof["holds"]) == (False, False)
    assert abs(proof["difference"]) < 1e-3


@pytest.mark.slow
def test_a_decoding_process_that_fails(tiny_model: Path) -> None:
    with pytest.raises(CodecError, match=r"the decoding process failed: got underpar: .*not text"):
        module._decoded_elsewhere(b"nonsense", tiny_model)


def test_text_of_another_tokenizer(nano_run: Run) -> None:
    lengths = np.full(99, 2, np.int32)
    tokens = np.full(100, 65, np.uint16)
    stream = ValidationSet(tokens, lengths, np.zeros(1, np.int64), int(lengths.sum()))
    with pytest.raises(DataError, match="another tokenizer"):
        prove(nano_run["model.upar"], stream, Options())


def test_a_head_of_a_validation_set(data: Path) -> None:
    whole = open_dataset(data).validation()
    part = whole.beginning(3500)
    assert part.n_targets == 3500
    assert part.documents.tolist() == [0, 2001]
    assert part.true_bytes == 3499
    np.testing.assert_array_equal(part.tokens, whole.tokens[:3501])
    assert whole.beginning(10**9).n_targets == whole.n_targets
    assert whole.beginning(2000).documents.tolist() == [0]


def test_holds_up_to_a_thousandth() -> None:
    claim = Score(1e6 * LN2, 1000, 1000, 1.0)
    for bits, good in ((1_000_999, True), (1_001_001, False), (999_001, True), (998_999, False)):
        proof = Proof(claim, bits, 200_000, 0, True, True, 1.0, 1.0)
        assert proof.holds is good
        assert not replace(proof, text_same=False).holds
