"""compare and leaderboard, as a person types them."""

from __future__ import annotations

import json
from pathlib import Path
from shutil import copytree

import pytest

from tests.commands import Run, underpar
from tests.test_stats import PR1394, PR1394_BPB, PR1413, PR1413_BPB
from underpar.cli.review import spread

SIZE = ("--tokens", 40_540_160, "--bytes", 151_078_222)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("a b --x c d --y e", "a b --x c --x d --y e"),
        ("--x c --x d a", "--x c --x d --x a"),
        ("--x=c d --y", "--x=c --x d --y"),
        ("a --y b c", "a --y b c"),
        ("a --x", "a --x"),
    ],
)
def test_an_option_takes_all_values_up_to_the_next(typed: str, meant: str) -> None:
    assert spread(typed.split(), "--x") == meant.split()


def test_published_figures_can_be_compared() -> None:
    """#1413 against #1394, in either unit and either way of typing lists."""
    theirs = PR1394_BPB.values
    one = underpar("compare", *PR1413_BPB.values, "--against", *theirs, *SIZE)
    assert one.code == 0, one.err
    assert "0.00731" in one.out
    assert "0.00283" in one.out
    assert "not shown at p < 0.01" in one.out
    assert "p = 0.059" in one.out
    repeated = [part for value in theirs for part in ("--against", value)]
    assert underpar("compare", *PR1413_BPB.values, *SIZE, *repeated).out == one.out
    nats = underpar("compare", *PR1413.values, "--unit", "nats", "--against", *PR1394.values)
    assert "p = 0.059" in nats.out
    assert "bpb" not in nats.out


def test_what_is_asked_can_be_changed() -> None:
    lists = (*PR1413_BPB.values, "--against", *PR1394_BPB.values, *SIZE)
    assert ": shown at p < 0.01" in underpar("compare", *lists, "--delta", 0).out
    assert ": shown at p < 0.1" in underpar("compare", *lists, "--alpha", 0.1).out
    assert "| A " in underpar("compare", *lists, "--markdown").out


def test_the_comparison_as_json(tmp_path: Path) -> None:
    out = tmp_path / "c.json"
    lists = (*PR1413_BPB.values, "--against", *PR1394_BPB.values)
    assert underpar("compare", *lists, *SIZE, "--json", out).code == 0
    data = json.loads(out.read_text())
    assert data["ours"] == [str(value) for value in PR1413_BPB.values]
    assert round(data["nats/token"]["difference"], 5) == 0.00731
    assert round(data["bpb"]["difference"], 5) == 0.00283
    assert data["bpb"]["p"] == pytest.approx(data["nats/token"]["p"])
    assert data["nats/token"]["runs_needed_each"] == 4


def test_mistakes_are_one_line() -> None:
    done = underpar("compare", 1.1, "--against", 1.2)
    assert done.failed_with("no size of the text", "--tokens and --bytes")
    assert underpar("compare", 1.1, "--against", 1.2, "--tokens", 5).failed_with("wanted both")
    assert underpar("compare", 1.1, "--against", 1.2, "--alpha", 1).failed_with("--alpha")
    assert underpar("compare", "nowhere", "--against", 1.2).failed_with("nowhere")
    assert underpar("compare", 1.1).code == 2
    assert underpar("compare", "--against", 1.1, 1.2).code == 2  # nothing is left for A


def test_runs_are_read_from_their_folders(nano_run: Run, tmp_path: Path) -> None:
    best = nano_run.record.stages["sliding"]
    done = underpar("compare", nano_run.out, "--against", 9.5, 9.75, "--stage", "sliding")
    assert done.code == 0, done.err
    assert f"{best.bpb:.5f}" in done.out
    assert "A: a single run has no spread" in done.out
    twin = copytree(nano_run.out, tmp_path / "twin")
    same = underpar("compare", nano_run.out, twin, "--against", 9.5, "--stage", "sliding")
    assert same.failed_with("a second time")


def test_a_leaderboard_of_a_folder(nano_run: Run, tmp_path: Path) -> None:
    copytree(nano_run.out, tmp_path / "runs" / "one")
    (tmp_path / "runs" / "two").mkdir()
    (tmp_path / "runs" / "two" / "record.json").write_text("{")
    stage, score = nano_run.record.best()
    done = underpar("leaderboard", tmp_path / "runs")
    assert done.code == 0, done.err
    assert f"{score.bpb:.5f}" in done.out
    assert "damaged JSON" in done.out
    data = json.loads(underpar("leaderboard", tmp_path / "runs", "--json").out)
    assert [(e["run"], e["stage"], e["bpb"]) for e in data["entries"]] == [
        ("one", stage, score.bpb)
    ]
    assert "| run " in underpar("leaderboard", tmp_path / "runs", "--markdown").out
    assert underpar("leaderboard", tmp_path, "--json", "--markdown").failed_with("one of them")
    assert underpar("leaderboard", tmp_path / "none").failed_with("no record.json")
