"""Runs against runs: what may be compared, and that the words say what the numbers say."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from tests.commands import byte_data
from tests.test_stats import PR1394, PR1413, PR1413_BPB, SP8192
from underpar.bits import Score
from underpar.data.opening import open_dataset
from underpar.errors import DataError
from underpar.recipe.load import resolve
from underpar.recipe.schema import Recipe
from underpar.report.compare import samples, summary
from underpar.report.record import DataFacts, Record
from underpar.report.stats import BPB, NATS, Comparison, Sample, Text

TOKENS, BYTES = 500, 1000

Make = Callable[..., str]


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> DataFacts:
    return DataFacts.of(open_dataset(byte_data(tmp_path_factory.mktemp("data"), "to be scored")))


@pytest.fixture
def make(tmp_path: Path, facts: DataFacts) -> Make:
    """Writes a run folder with a record, and returns its path."""

    def write(
        name: str,
        nats: float = 2.0,
        *,
        seed: int = 1,
        data: DataFacts | None = facts,
        recipe: Sequence[str] = (),
        stage: str = "ttt",
        n_bytes: int = BYTES,
    ) -> str:
        meant: Recipe = resolve("nano", list(recipe), seed)
        score = Score(nats=nats * TOKENS, tokens=TOKENS, bytes=n_bytes, coverage=1.0)
        record = Record.start(meant, data=data).with_stage(stage, score)
        (tmp_path / name).mkdir()
        record.write(tmp_path / name / "record.json")
        return str(tmp_path / name)

    return write


def gather(
    ours: list[str], theirs: list[str], unit: str = BPB, text: Text | None = None
) -> tuple[Sample, Sample, Text | None]:
    return samples(ours, theirs, stage="ttt", unit=unit, text=text)


def test_records_become_nats_per_token(make: Make) -> None:
    ours = [make("a1", 2.0, seed=1), make("a2", 2.5, seed=2) + "/record.json"]
    a, b, text = gather(ours, [make("b", 3.0, recipe=["train.min_lr=0.5"])])
    assert a == Sample((2.0, 2.5), NATS)
    assert b == Sample((3.0,), NATS)
    assert text == Text(TOKENS, BYTES)


def test_published_figures_are_converted() -> None:
    numbers = [f"{value:.8f}" for value in PR1413_BPB.values]
    a, _, text = gather(numbers, ["1.09"], text=SP8192)
    assert a.values == pytest.approx(PR1413.values, abs=2e-8)
    assert text == SP8192
    a, b, text = gather(["2.5", "2.6"], ["2.7"], unit=NATS)
    assert (a.values, b.values, text) == ((2.5, 2.6), (2.7,), None)


def test_records_bring_the_size_of_the_text_for_numbers(make: Make) -> None:
    run = make("a", 2.0)
    _, b, _ = gather([run], ["1.5"])
    assert b.values == pytest.approx([Text(TOKENS, BYTES).convert(1.5, BPB, NATS)])
    with pytest.raises(DataError, match="as in the records"):
        gather([run], ["1.5"], text=Text(TOKENS, BYTES + 1))


def test_bpb_without_a_text_cannot_be_judged() -> None:
    with pytest.raises(DataError, match=r"no size of the text.*--tokens and --bytes"):
        gather(["1.5"], ["1.6"])


def test_a_folder_may_be_called_7(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(make("7", 2.25)).parent)
    assert gather(["7"], ["7.0"])[0].values == (2.25,)


def test_other_validation_data_is_refused(make: Make, facts: DataFacts) -> None:
    ours = make("a")
    for i, change in enumerate(({"val_tokens": 7}, {"tokenizer_digest": "00" * 32})):
        other = make(f"b{i}", data=replace(facts, **change))
        with pytest.raises(DataError, match=rf"different validation data: {next(iter(change))} "):
            gather([ours], [other])
    with pytest.raises(DataError, match="scored_bytes 999 and 1000"):
        gather([ours], [make("c", n_bytes=999)])
    with pytest.raises(DataError, match="no data section"):
        gather([ours], [make("d", data=None)])


def test_a_sample_is_one_recipe_under_several_seeds(make: Make) -> None:
    first = make("a", seed=1)
    with pytest.raises(DataError, match="different recipes"):
        gather([first, make("other", seed=2, recipe=["train.min_lr=0.5"])], ["1.5"])
    with pytest.raises(DataError, match="seed 1 a second time"):
        gather([first, make("again", seed=1)], ["1.5"])
    with pytest.raises(DataError, match="seed 1 a second time"):
        gather(["1.5"], [first, first])
    with pytest.raises(DataError, match="on both sides"):
        gather([first], [first + "/record.json"])


def test_an_unfinished_run_is_refused_with_the_reason(make: Make, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"got finished stages sliding, wanted ttt"):
        gather([make("early", stage="sliding")], ["1.5"])
    with pytest.raises(DataError, match=r"cannot compare .*nowhere.*No such file"):
        gather([str(tmp_path / "nowhere")], ["1.5"])


def test_a_partial_score_is_refused(make: Make) -> None:
    path = Path(make("part")) / "record.json"
    record = json.loads(path.read_text())
    record["stages"]["ttt"]["coverage"] = 0.5
    path.write_text(json.dumps(record))
    with pytest.raises(DataError, match=r"part.*coverage 0\.5"):
        gather([str(path)], ["1.5"])


def test_the_summary_of_the_published_comparison() -> None:
    text = summary(Comparison(PR1413, PR1394, 0.005), SP8192, 0.01)
    table, verdict, outlook = text.split("\n\n")
    cells = [[cell.strip() for cell in line.split("│")] for line in table.splitlines()]
    assert cells[2] == ["A", "3", "2.79697", "0.00156", "1.08279", "0.00060"]
    assert cells[3] == ["B", "5", "2.80428", "0.00186", "1.08562", "0.00072"]
    assert cells[4] == ["B - A", "–", "0.00731", "–", "0.00283", "–"]
    assert cells[5][0] == "at least (0.99, one-sided)"
    assert [cells[5][2], cells[5][4]] == ["0.00321", "0.00124"]
    assert [cells[6][2], cells[6][4]] == ["0.00240 .. 0.01223", "0.00093 .. 0.00473"]
    assert verdict == (
        "A better by more than 0.005 nats/token = 0.001936 bpb: not shown at p < 0.01. One-sided "
        "Welch test: t = 1.888, 5.04 degrees of freedom, p = 0.059. "
        "sd: sample standard deviation, n - 1."
    )
    assert outlook.endswith("4 more runs of A and of B, or no number of runs of A alone.")


def test_the_summary_says_shown_and_hopeless() -> None:
    shown = summary(Comparison(PR1413, PR1394, 0.0), None, 0.01)
    assert ": shown at p < 0.01." in shown
    assert "mean bpb" not in shown
    assert "even chance" not in shown
    hopeless = summary(Comparison(PR1394, PR1413, 0.005), SP8192, 0.01)
    assert "not shown at" in hopeless
    assert hopeless.endswith("no number of runs shows it.")


def test_the_summary_without_a_spread() -> None:
    text = summary(Comparison(Sample((2.0,), NATS), PR1394, 0.005), None, 0.01, markdown=True)
    assert "| A     |  1 |" in text
    assert text.endswith("cannot be tested. A: a single run has no spread.")
    assert "at least" not in text
