"""underpar seeds: each seed in its folder, once; stopped ones go on, finished ones are skipped."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest

from tests.commands import Run, contents, numbers, torchrun, underpar
from tests.submitting import three
from underpar.submit.runs import read_runs
from underpar.submit.seeds import Seeds

__all__ = ["three"]  # a fixture

SHORT = ("--set", "train.iterations=2")


@pytest.fixture(scope="module")
def seeds(nano_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds, run by the command."""
    out = tmp_path_factory.mktemp("seeds") / "nano"
    done = underpar("seeds", "nano", "--data", nano_run.data, "--seeds", 7, 8, "--out", out, *SHORT)
    assert done.code == 0, done.err
    assert "seed 7: starts" in done.err
    values = [
        Run(out / name, nano_run.data).record.stages["ttt"].bpb for name in ("seed7", "seed8")
    ]
    for value in (*values, statistics.mean(values), statistics.stdev(values)):
        assert f"{value:.5f}" in done.out
    assert "sample standard deviation, n - 1" in done.out
    return out


def test_each_seed_is_a_run_of_its_own(seeds: Path, nano_run: Run, tmp_path: Path) -> None:
    seven, eight = (Run(seeds / name, nano_run.data).record for name in ("seed7", "seed8"))
    assert (seven.seed, eight.seed) == (7, 8)
    assert seven.stages["ttt"].nats != eight.stages["ttt"].nats
    alone = underpar(
        "train", "nano", "--data", nano_run.data, "--seed", 8, "--out", tmp_path / "n", *SHORT
    )
    assert alone.code == 0, alone.err
    assert numbers(Run(tmp_path / "n", nano_run.data).record) == numbers(eight)


def test_done_ones_are_skipped_and_stopped_ones_go_on(
    seeds: Path, nano_run: Run, tmp_path: Path
) -> None:
    out = tmp_path / "nano"
    runs = [Run(seeds / name, nano_run.data).copy(out / name) for name in ("seed7", "seed8")]
    wanted = numbers(runs[1].record)
    runs[1].forget("sliding", "ttt")
    before = contents(out / "seed7")
    command = ("seeds", "nano", "--data", nano_run.data, "--seeds", 7, 8, "--out", out, *SHORT)
    done = underpar(*command)
    assert done.code == 0, done.err
    assert "seed 7: done already" in done.err
    assert "seed 8: goes on" in done.err
    assert "training was finished at step 2" in done.err
    assert contents(out / "seed7") == before
    assert numbers(runs[1].record) == wanted
    assert sorted(path.name for path in out.iterdir()) == ["seed7", "seed8"]


def test_another_recipe_in_a_seeds_folder_is_moved_aside(
    seeds: Path, nano_run: Run, tmp_path: Path
) -> None:
    out = tmp_path / "nano"
    Run(seeds / "seed7", nano_run.data).copy(out / "seed7")
    settings = ("--set", "train.iterations=1", "--set", "score.ttt=false")
    done = underpar("seeds", "nano", "--data", nano_run.data, "--seeds", 7, "--out", out, *settings)
    assert done.code == 0, done.err
    assert "one seed, so no deviation" in done.out
    assert sorted(path.name for path in out.iterdir()) == ["seed7", "seed7-1"]


def test_mistakes_are_one_line(nano_run: Run, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "n")
    assert underpar("seeds", "nano", "--seeds", 3, 3, *out).failed_with("each seed once", "3 3")
    refused = underpar("seeds", "nano", "--seeds", 3, "--out", nano_run.out)
    assert refused.failed_with("a folder of run folders")
    assert underpar("seeds", "nan", "--seeds", 3, *out).failed_with("Did you mean 'nano'?")
    assert underpar("seeds", "nano", "--seeds", "x", *out).code == 2
    assert underpar("seeds", "nano", *out).code == 2
    assert not (tmp_path / "n").exists()


@pytest.mark.slow
def test_two_processes(nano_run: Run, tmp_path: Path) -> None:
    """Two seeds one after the other in one process group, the first of them done already."""
    out = tmp_path / "n"
    halves = (*SHORT, "--set", "train.micro_tokens=512", "--set", "score.ttt=false")
    command = ("seeds", "nano", "--data", nano_run.data, *halves, "--out", out, "--seeds")
    done = torchrun(*command, 1, 2)
    assert done.err.count("2 process(es)") == 2
    assert done.out.count("Mean of 2 seeds") == 1
    assert {path.name for path in out.iterdir()} == {"seed1", "seed2"}


def test_a_table_is_of_the_code_that_is_counted(three: list[Run]) -> None:
    runs = read_runs([run.out for run in three])
    as_run, as_shipped = Seeds.of(runs), Seeds.of(runs, code_bytes=1000, cap=16_000_000)
    facts = runs[0].artifact
    assert as_run.rows[0].total_bytes == facts.total_bytes
    assert as_run.rows[0].left == facts.budget_bytes - facts.total_bytes
    assert as_shipped.rows[0].total_bytes == facts.total_bytes - facts.code_bytes + 1000
    assert as_shipped.rows[0].left == 16_000_000 - as_shipped.rows[0].total_bytes
    assert as_shipped.largest == max(row.total_bytes for row in as_shipped.rows)
    assert as_run.rows[1].difference == runs[1].headline.bpb - runs[1].before.bpb
    assert "| ---" in as_run.table(markdown=True)
