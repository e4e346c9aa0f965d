"""underpar submit, as a person types it."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest

from tests.commands import Run, underpar
from tests.submitting import CODE, edit, load, proof, stand_in, three
from tests.test_readme import commands, parse
from underpar import rerun, ship
from underpar.recipe.load import resolve
from underpar.report.record import Record
from underpar.submit.folder import bundle_only
from underpar.submit.meta import EXAMPLE

__all__ = ["three"]  # a fixture

DOCS = Path(__file__).parent.parent / "docs"


@pytest.fixture
def code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ship, "write", stand_in, raising=False)


@pytest.mark.usefixtures("code")
def test_the_command(three: list[Run], tmp_path: Path) -> None:
    folders = [run.out for run in three]
    done = underpar("submit", *folders, "-o", tmp_path / "out")
    assert done.code == 0, done.err
    values = [run.record.stages["ttt"].bpb for run in three]
    assert f"{statistics.mean(values):.5f} bpb" in done.out
    assert 'github_id = "ada"' in done.out
    (tmp_path / "submit.toml").write_text(EXAMPLE)
    meta = ("--meta", tmp_path / "submit.toml", "--track", "non-record-16mb")
    again = underpar("submit", *folders, "-o", tmp_path / "again", *meta)
    assert again.code == 0, again.err
    assert "github_id" not in again.out
    assert load(tmp_path / "again")["author"] == "Ada Lovelace"


@pytest.mark.usefixtures("code")
def test_mistakes_are_one_line(three: list[Run], tmp_path: Path) -> None:
    out = ("-o", tmp_path / "out")
    first = three[0].out
    assert underpar("submit", first, first, *out).failed_with("seed 0 a second time")
    assert underpar("submit", tmp_path / "none", *out).failed_with("cannot submit", "none")
    assert underpar("submit", *out).failed_with("got neither")
    assert underpar("submit", first, "--bundle-only", "nano", *out).failed_with("got both")
    assert underpar("submit", first, "--track", "10min", *out).failed_with("non-record-16mb")
    assert underpar("submit", first).code == 2
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("code")
def test_just_the_code(tmp_path: Path) -> None:
    done = underpar("submit", "--bundle-only", "pr1413", "-o", tmp_path / "out")
    assert done.code == 0, done.err
    names = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert names == {"train_gpt.py": CODE, "train_gpt_readable.py": b"# pr1413\n"}
    assert f"{len(CODE):,} bytes" in done.out
    assert underpar("submit", "--bundle-only", "pr14", "-o", tmp_path / "b").failed_with("pr1413")
    assert bundle_only(resolve("nano"), tmp_path / "c", write_code=stand_in)["train_gpt.py"] == len(
        CODE
    )


@pytest.mark.usefixtures("code")
def test_only_missing_proofs_are_made(
    three: list[Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit(three[0], diagnostics={"proof": proof(three[0])})
    made = []

    def proven(record: Record, out: Path, *, data: Path | None) -> Record:
        made.append((record.seed, data))
        return edit(Run(out, three[0].data), diagnostics={"proof": proof(three[0])}).record

    monkeypatch.setattr(rerun, "proven", proven)
    folders = [run.out for run in three]
    options = ("--proof", "--data", three[0].data, "-o", tmp_path / "out")
    done = underpar("submit", *folders, *options)
    assert done.code == 0, done.err
    assert made == [(42, three[0].data), (1234, three[0].data)]
    assert "3, all came back as the same text" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.slow
@pytest.mark.usefixtures("code")
def test_a_proof_is_made_on_demand(nano_run: Run, tmp_path: Path) -> None:
    run = nano_run.copy(tmp_path / "n")
    done = underpar("submit", run.out, "--proof", "--data", run.data, "-o", tmp_path / "out")
    assert done.code == 0, done.err
    assert "PROVEN" in done.err
    found = run.record.diagnostics["proof"]
    assert f"{found['coded_bits']:,}" in (tmp_path / "out" / "README.md").read_text()


def test_the_commands_of_the_docs_parse() -> None:
    shown = commands((DOCS / "submit.md").read_text())
    assert {arguments[0] for arguments in shown} == {"seeds", "compare", "submit"}
    for arguments in shown:
        numbers = ["42" if argument.startswith("$") else argument for argument in arguments]
        assert parse(numbers)
