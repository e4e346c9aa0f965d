"""The leaderboard: ranked from records, and nothing that does not rank is lost."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.commands import byte_data
from underpar.bits import LN2, Score
from underpar.data.opening import open_dataset
from underpar.errors import DataError
from underpar.recipe.load import resolve
from underpar.report.leaderboard import leaderboard
from underpar.report.record import ArtifactFacts, DataFacts, Record, TrainFacts

Make = Callable[..., Path]

TRAIN = TrainFacts(
    steps=1234, tokens=99, seconds=588.04, compile_seconds=0.0, stop_reason="seconds"
)


def score(bpb: float, n_bytes: int = 1000) -> Score:
    return Score(nats=bpb * LN2 * n_bytes, tokens=n_bytes // 2, bytes=n_bytes, coverage=1.0)


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> DataFacts:
    return DataFacts.of(open_dataset(byte_data(tmp_path_factory.mktemp("data"), "to be scored")))


@pytest.fixture
def make(tmp_path: Path, facts: DataFacts) -> Make:
    """Writes a run folder below tmp_path with these stages."""

    def write(
        name: str, *, seed: int = 1, total: int = 15_990_874, n_bytes: int = 1000, **stages: float
    ) -> Path:
        record = Record.start(resolve("nano", seed=seed), train=TRAIN, data=facts)
        for stage, bpb in stages.items():
            record = record.with_stage(stage, score(bpb, n_bytes))
        record = record.with_artifact(
            ArtifactFacts(
                file_bytes=total - 1000,
                code_bytes=1000,
                total_bytes=total,
                budget_bytes=16_000_000,
                sha256="00" * 32,
            )
        )
        path = tmp_path / name / "record.json"
        path.parent.mkdir(parents=True)
        record.write(path)
        return path

    return write


def test_runs_are_ranked_by_their_best_shipped_score(make: Make, tmp_path: Path) -> None:
    make("x/late", seed=3, float=1.0, ttt=1.5)
    make("x/early", seed=2, quantized=1.3, sliding=1.25)
    make("y", seed=1, sliding=1.4, ttt=1.375)
    board = leaderboard(tmp_path)
    ranks = [(e.run, e.recipe, e.seed, e.stage, round(e.bpb, 9)) for e in board.entries]
    assert ranks == [
        ("x/early", "nano", 2, "sliding", 1.25),
        ("y", "nano", 1, "ttt", 1.375),
        ("x/late", "nano", 3, "ttt", 1.5),
    ]
    assert board.unranked == ()


def test_the_table_is_that_of_the_records(make: Make, tmp_path: Path) -> None:
    make("run", seed=7, sliding=1.4, ttt=1.375)
    title, table = leaderboard(tmp_path).render().split("\n\n")
    assert title.startswith("Validation data: 1,000 bytes, 500 tokens, digest ")
    head, _, line = (row.split("│") for row in table.splitlines())
    cells = dict(zip(map(str.strip, head), map(str.strip, line)))
    assert cells == {
        "run": "run",
        "recipe": "nano",
        "seed": "7",
        "stage": "+ score-first TTT",
        "bpb": "1.37500",
        "nats/token": f"{1.375 * LN2 * 2:.5f}",
        "total bytes": "15,990,874",
        "budget": "16,000,000",
        "train s": "588.0",
        "steps": "1,234",
        "coverage": "100%",
    }
    assert leaderboard(tmp_path).render(markdown=True).splitlines()[2].startswith("| run | recipe")


def test_a_stage_can_be_asked_for(make: Make, tmp_path: Path) -> None:
    make("a", float=1.0, sliding=1.4)
    make("b", float=1.1, sliding=1.3, ttt=1.2)
    assert [e.run for e in leaderboard(tmp_path, "sliding").entries] == ["b", "a"]
    assert [e.run for e in leaderboard(tmp_path, "float").entries] == ["a", "b"]
    board = leaderboard(tmp_path, "ttt")
    assert [e.run for e in board.entries] == ["b"]
    assert board.unranked == (("a", "score: got finished stages float, sliding, wanted ttt"),)


def test_what_does_not_rank_is_listed_with_the_reason(make: Make, tmp_path: Path) -> None:
    make("good", ttt=1.5)
    make("heavy", ttt=1.1, total=16_000_001)
    make("unscored")
    make("unshipped", float=1.0)
    path = make("partial", ttt=1.2)
    data = json.loads(path.read_text())
    data["stages"]["ttt"]["coverage"] = 0.25
    path.write_text(json.dumps(data))
    make("damaged", ttt=1.0).write_text("{")
    make("foreign", ttt=1.0).write_text('{"format": "other"}')
    board = leaderboard(tmp_path)
    assert [entry.run for entry in board.entries] == ["good"]
    reasons = dict(board.unranked)
    assert set(reasons) == {"heavy", "unscored", "unshipped", "partial", "damaged", "foreign"}
    assert "16,000,001 bytes" in reasons["heavy"]
    assert "no stage" in reasons["unscored"]
    assert "only before quantization" in reasons["unshipped"]
    assert "coverage 0.25" in reasons["partial"]
    assert "damaged JSON" in reasons["damaged"]
    assert "JSON of another kind" in reasons["foreign"]
    shown = board.render().split("Not ranked:")[1]
    assert all(run in shown and why in shown for run, why in reasons.items())


def test_scores_of_different_texts_do_not_rank_together(make: Make, tmp_path: Path) -> None:
    make("small", ttt=1.0, n_bytes=500)
    make("large", ttt=2.0, n_bytes=2000)
    make("larger", ttt=1.5, n_bytes=2000)
    text = leaderboard(tmp_path).render()
    assert text.count("Validation data:") == 2
    first = text.split("\n\n")[1]
    assert "small" not in first
    assert first.index("larger") < first.index("large ")


def test_json_has_everything(make: Make, tmp_path: Path) -> None:
    make("a", ttt=1.5)
    make("b").write_text("")
    data = json.loads(json.dumps(leaderboard(tmp_path).to_json(), allow_nan=False))
    (entry,) = data["entries"]
    assert (entry["run"], entry["train_seconds"], entry["budget_bytes"]) == (
        "a",
        588.04,
        16_000_000,
    )
    assert [item["run"] for item in data["unranked"]] == ["b"]


def test_a_folder_without_records_is_an_error(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(DataError, match=r"no record\.json in it"):
            leaderboard(folder)
    with pytest.raises(DataError, match="one of float, quantized, sliding, ttt"):
        leaderboard(tmp_path, "plain")
