"""The record: only complete scores are stages, and reading takes nothing that almost fits."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import children
from underpar.bits import LN2, Score
from underpar.data.build import build
from underpar.data.corpus import Document
from underpar.data.tokenizer import ByteTokenizer
from underpar.errors import DataError, LegalityError, MachineError
from underpar.recipe.plain import digest, to_json
from underpar.recipe.schema import Recipe
from underpar.report import machine as machine_module
from underpar.report.record import ArtifactFacts, DataFacts, Record, TrainFacts
from underpar.train.run import TrainResult

TRAIN = TrainFacts(
    steps=10, tokens=40_960, seconds=3.5, compile_seconds=0, stop_reason="iterations"
)
DATA = DataFacts(
    train_tokens=100_000,
    val_tokens=501,
    val_digest="cd" * 32,
    val_documents=2,
    val_bytes=1000,
    raw_bytes=None,
    normalized=False,
    tokenizer_digest="ab" * 32,
)
ARTIFACT = ArtifactFacts(
    file_bytes=5000,
    code_bytes=700,
    total_bytes=5600,
    budget_bytes=16_000_000,
    sha256="cd" * 32,
)


def score(bpb: float, coverage: float = 1.0) -> Score:
    return Score(nats=bpb * LN2 * 1000, tokens=500, bytes=1000, coverage=coverage, seconds=1.25)


@pytest.fixture(scope="module")
def record() -> Record:
    started = Record.start(Recipe(name="toy", seed=7), command="underpar x", train=TRAIN, data=DATA)
    return (
        started.with_artifact(ARTIFACT)
        .with_stage("ttt", score(1.5))
        .with_stage("float", score(1.4))
        .with_stage("quantized", score(1.7))
        .with_diagnostic("early look", score(1.9, coverage=0.25))
    )


def test_a_record_reads_back_equal(record: Record, tmp_path: Path) -> None:
    record.write(tmp_path / "record.json")
    assert Record.read(tmp_path / "record.json") == record


def test_a_record_states_the_recipe_the_machine_and_the_versions(record: Record) -> None:
    assert record.recipe_digest == digest(Recipe(name="toy", seed=7))
    assert record.recipe == to_json(Recipe(name="toy", seed=7))
    assert (record.name, record.seed) == ("toy", 7)
    assert record.machine.cores >= 1
    assert record.machine.memory_gb > 0.1
    assert record.machine.python == sys.version.split()[0]
    assert {"underpar", "torch", "numpy"} <= record.versions.keys()


def test_stages_stand_in_the_order_of_the_line(record: Record) -> None:
    assert list(record.stages) == ["float", "quantized", "ttt"]


def test_the_best_stage_is_one_of_the_shipped_file(record: Record) -> None:
    assert record.best()[0] == "ttt", "the float file scores lower, but nobody ships it"
    bare = Record.start(Recipe())
    assert bare.with_stage("float", score(1.4)).best()[0] == "float"
    with pytest.raises(DataError, match="no stage"):
        bare.best()


def test_a_partial_score_is_no_stage_but_may_be_a_diagnostic(record: Record) -> None:
    with pytest.raises(LegalityError, match=r"'sliding'.*coverage 0\.999.*with_diagnostic"):
        record.with_stage("sliding", score(1.0, coverage=0.999))
    assert record.diagnostics["early look"]["coverage"] == 0.25


def test_an_unknown_stage_is_refused(record: Record) -> None:
    with pytest.raises(DataError, match="float, quantized, sliding, ttt"):
        record.with_stage("final", score(1.0))


def test_train_facts_take_what_they_need_from_a_result() -> None:
    result = TrainResult(
        steps=10,
        tokens=40_960,
        seconds=3.5,
        compile_seconds=0.0,
        stop_reason="iterations",
        losses=[1.0, 2.0],
        dtype="float32",
        compiled=False,
    )
    assert TrainFacts.of(result) == TRAIN


def test_data_facts_are_those_of_the_folder(tmp_path: Path) -> None:
    train, val = ([Document("a", "läuft" * 9)], [Document("b", "ja!"), Document("c", "ä")])
    facts = DataFacts.of(build(train, val, ByteTokenizer(), tmp_path))
    assert facts == DataFacts(
        train_tokens=55,
        val_tokens=7,
        val_digest=facts.val_digest,
        val_documents=2,
        val_bytes=5,
        raw_bytes=5,
        normalized=False,
        tokenizer_digest=ByteTokenizer().fingerprint(),
    )


def test_a_number_that_json_cannot_hold_is_not_written(record: Record, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Out of range"):
        record.with_diagnostic("loss", float("nan")).write(tmp_path / "record.json")
    assert not (tmp_path / "record.json").exists()


def test_a_record_that_cannot_be_written_says_why(record: Record, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError, match="cannot write"):
        record.write(tmp_path / "file" / "record.json")


def _set(*path: str | int, to: object) -> Callable[[dict[str, Any]], None]:
    def damage(data: dict[str, Any]) -> None:
        *folders, last = path
        for key in folders:
            data = data[key]
        data[last] = to

    return damage


DAMAGE = {
    "foreign": (_set("format", to="something.else"), "JSON of another kind"),
    "version": (_set("schema", to=1), "record schema 1, wanted 2"),
    "unknown field": (_set("extra", to=1), r"unknown or missing fields \['extra'\]"),
    "missing field": (lambda data: data.pop("seed"), r"unknown or missing fields \['seed'\]"),
    "type": (_set("seed", to="7"), "seed: got '7', wanted int"),
    "bool for int": (_set("train", "steps", to=True), "steps"),
    "list for section": (_set("machine", to=[]), "machine"),
    "nested unknown": (_set("artifact", "colour", to=1), "colour"),
    "number for a version": (_set("versions", "numpy", to=2.4), "numpy"),
    "stage": (_set("stages", "final", to=score(1.0).to_json()), "final"),
    "bpb": (_set("stages", "ttt", "bpb", to=1.0), "its nats over its bytes"),
    "score field": (lambda data: data["stages"]["ttt"].pop("bytes"), "a score with its bpb"),
    "score type": (_set("stages", "ttt", "nats", to="x"), "a number"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_record_is_refused(record: Record, tmp_path: Path, name: str) -> None:
    damage, message = DAMAGE[name]
    data = json.loads(json.dumps(record.to_json()))
    damage(data)
    (tmp_path / "record.json").write_text(json.dumps(data))
    with pytest.raises(DataError, match=message):
        Record.read(tmp_path / "record.json")


def test_a_partial_stage_in_a_file_is_refused(record: Record) -> None:
    data = json.loads(json.dumps(record.to_json()))
    data["stages"]["ttt"]["coverage"] = 0.5
    with pytest.raises(LegalityError):
        Record.from_json(data)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[1]"])
def test_something_that_is_no_record_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "record.json").write_bytes(content)
    with pytest.raises(DataError, match=r"record\.json"):
        Record.read(tmp_path / "record.json")
    with pytest.raises(DataError, match="cannot read"):
        Record.read(tmp_path / "absent.json")


def test_commit_belongs_to_this_package_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Installed, but not tracked, inside a repository: that repository's commit is not ours."""
    module = tmp_path / "lib" / "machine.py"
    module.parent.mkdir()
    module.write_text("")

    def git(*words: str) -> children.Ended:
        person = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        return children.run(["git", "-C", tmp_path, *person, *words])

    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "x")
    monkeypatch.setattr(machine_module, "__file__", str(module))
    assert machine_module.commit() == ""

    git("add", "lib")
    git("commit", "-q", "-m", "track it")
    head = git("rev-parse", "HEAD").out.strip()
    assert machine_module.commit() == head
    module.write_text("# edited")
    assert machine_module.commit() == f"{head}+changes"


def test_without_git_there_is_no_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_git(*_: object, **__: object) -> None:
        raise FileNotFoundError("git")

    monkeypatch.setattr(machine_module.subprocess, "run", no_git)
    assert machine_module.commit() == ""
