"""A submission folder: whole or not there, and true to its records."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.commands import Run, contents, fill_disk
from tests.submitting import CODE, Make, changed, edit, load, make, proof, three
from underpar.errors import DataError, MachineError
from underpar.recipe.load import from_json, resolve
from underpar.report.record import Record
from underpar.submit.describe import summary
from underpar.submit.folder import submit

__all__ = ["make", "three"]  # fixtures

FILES = {"README.md", "requirements.txt", "submission.json", "train_gpt.py", "underpar.json"}


def tables(text: str) -> Iterator[list[dict[str, str]]]:
    """The Markdown tables of a text, each as rows by column."""
    for block in re.findall(r"(?:^\|.*\|\n?)+", text, re.MULTILINE):
        lines = [
            [cell.strip() for cell in line.strip("| ").split("|")] for line in block.splitlines()
        ]
        yield [dict(zip(lines[0], line, strict=True)) for line in lines[2:]]


def number(cell: str) -> float:
    return float(cell.replace(",", "").rstrip("%"))


# --- what is written --------------------------------------------------------------------------


def test_the_folder_holds_what_is_handed_in(three: list[Run], make: Make) -> None:
    out = make(three)
    logs = {f"train_seed{seed}.log" for seed in (0, 42, 1234)}
    assert {path.name for path in out.iterdir()} == FILES | logs
    assert (out / "train_gpt.py").read_bytes() == CODE
    assert [path.name for path in out.parent.iterdir() if path.name.startswith(".")] == []
    text = (out / "requirements.txt").read_text()
    version = three[0].record.versions["torch"]
    assert text.startswith(f"torch=={version.partition('+')[0]}")
    assert re.search(r"^numpy==\S+$", text, re.MULTILINE)
    assert "brotli" not in text  # the recipe's compressor is our own


def test_the_table_of_seeds_says_what_the_records_say(three: list[Run], make: Make) -> None:
    readme = (make(three) / "README.md").read_text()
    seeds, stages, *_ = tables(readme)
    for run, row in zip(three, seeds[:3], strict=True):
        record = run.record
        sliding, ttt, facts = record.stages["sliding"], record.stages["ttt"], record.artifact
        assert facts is not None
        assert record.train is not None
        total = facts.total_bytes - facts.code_bytes + len(CODE)
        wanted = {
            "seed": record.seed,
            "steps": record.train.steps,
            "+ sliding windows, bpb": round(sliding.bpb, 5),
            "+ score-first TTT, bpb": round(ttt.bpb, 5),
            "difference": round(ttt.bpb - sliding.bpb, 5),
            "artifact": total,
            "margin": 16_000_000 - total,
            "train ms": round(1000 * record.train.seconds),
            "eval ms": round(1000 * ttt.seconds),
        }
        assert {key: number(cell) for key, cell in row.items()} == wanted
    values = [run.record.stages["ttt"].bpb for run in three]
    mean, sd = seeds[3], seeds[4]
    assert number(mean["+ score-first TTT, bpb"]) == round(statistics.mean(values), 5)
    assert number(sd["+ score-first TTT, bpb"]) == round(statistics.stdev(values), 5)
    assert "(sample standard deviation, n - 1)" in readme
    every = iter(stages)
    for run in three:
        for score in run.record.stages.values():
            row = next(every)
            assert number(row["seed"]) == run.record.seed
            assert number(row["bpb"]) == round(score.bpb, 8)
            assert number(row["nats/token"]) == round(score.nats_per_token, 8)
            assert (number(row["tokens"]), number(row["bytes"])) == (score.tokens, score.bytes)
            assert row["coverage"] == "100%"
            assert number(row["ms"]) == round(1000 * score.seconds)
    assert next(every, None) is None


def test_no_number_of_the_readme_comes_from_elsewhere(three: list[Run], make: Make) -> None:
    out = make(three)
    readme = (out / "README.md").read_text()
    records = [run.record for run in three]
    assert strange(readme, out, records) == set()
    headline = f"{statistics.mean(r.stages['ttt'].bpb for r in records):.5f}"
    assert strange(readme.replace(headline, "1.08279"), out, records) == {"1.08279"}
    block = re.search(r"```toml\n(.*?)```", readme, re.DOTALL)
    assert block
    (out / "again.toml").write_text(block[1])
    again = resolve(str(out / "again.toml"))
    assert again == from_json(records[0].recipe)


def strange(readme: str, out: Path, records: list[Record]) -> set[str]:
    """Numbers of the text, code aside, that are neither the records' nor the rules'."""
    known = {"256", "16,000,000", "1017", "10", "16", "1", "2", "3", "4", "8", "100"}
    leaves = [value for record in records for value in _leaves(record.to_json())]
    tables_of = load(out, "underpar.json")
    leaves += [*_leaves(tables_of["bpb"]), *_leaves(tables_of["nats_per_token"])]
    leaves += [path.stat().st_size for path in out.iterdir()]
    known |= set(re.findall(NUMBER, " ".join(str(leaf) for leaf in leaves)))
    known |= set(re.findall(NUMBER, summary(from_json(records[0].recipe))))
    known |= {text for leaf in leaves for text in _spelled(leaf)}
    sizes = [r.artifact.total_bytes - r.artifact.code_bytes for r in records if r.artifact]
    for size in (*sizes, statistics.mean(sizes)):
        total = size + len(CODE)
        known |= {f"{size:,.0f}", f"{total:,.0f}", f"{16_000_000 - total:,.0f}"}
        known |= {f"{total / 1e6:.3f}"}
    pairs = [(r.stages["sliding"].bpb, r.stages["ttt"].bpb) for r in records]
    before, differences = [a for a, _ in pairs], [b - a for a, b in pairs]
    for values in (before, differences):
        known |= {f"{abs(statistics.mean(values)):.5f}", f"{statistics.stdev(values):.5f}"}
        known |= {f"{abs(value):.5f}" for value in values}
    for times in ([r.train.seconds for r in records if r.train], _seconds(records, "ttt")):
        known |= {f"{1000 * statistics.mean(times):,.0f}", f"{max(times):,.3f}"}
    shipped = [_seconds(records, stage) for stage in ("quantized", "sliding", "ttt")]
    known |= {f"{max(map(sum, zip(*shipped))):,.3f}"}
    known |= {f"{records[0].train.steps:,.1f}"} if records[0].train else set()
    known |= {f"{score.nats_per_token:.8f}" for r in records for score in r.stages.values()}
    plain = re.sub(r"```.*?```", "", readme, flags=re.DOTALL)
    return {found for found in re.findall(NUMBER, plain) if found not in known}


NUMBER = r"\d+(?:,\d{3})*(?:\.\d+)?"


def _seconds(records: list[Record], stage: str) -> list[float]:
    return [record.stages[stage].seconds for record in records]


def _leaves(data: Any) -> Iterator[Any]:
    if isinstance(data, dict):
        data = list(data.values())
    if isinstance(data, list):
        for part in data:
            yield from _leaves(part)
    else:
        yield data


def _spelled(leaf: Any) -> Iterator[str]:
    if isinstance(leaf, int) and not isinstance(leaf, bool):
        yield f"{leaf:,}"
    if isinstance(leaf, float):
        yield from (f"{leaf:.5f}", f"{leaf:.8f}", f"{1000 * leaf:,.0f}", f"{leaf:g}")
    if isinstance(leaf, str):
        yield leaf[:12]


def test_nats_per_token_are_told_as_well(three: list[Run], make: Make) -> None:
    out = make(three)
    values = [run.record.stages["ttt"].nats_per_token for run in three]
    assert f"{statistics.mean(values):.5f} nats/token" in (out / "README.md").read_text()
    assert load(out)["val_loss"] == pytest.approx(statistics.mean(values), abs=1e-8)


def test_submission_json_has_the_published_fields(three: list[Run], make: Make) -> None:
    data = load(make(three))
    wanted = (
        "author github_id name blurb date track val_loss val_bpb val_loss_std val_bpb_std seeds "
        "seed_results artifact_bytes_mean artifact_bytes_max bytes_total bytes_code "
        "train_steps_mean step_avg_ms_mean hardware pytorch_version technique_summary compliance "
        "attribution"
    )
    assert list(data) == wanted.split()
    values = [run.record.stages["ttt"].bpb for run in three]
    assert data["val_bpb"] == pytest.approx(statistics.mean(values), abs=1e-8)
    assert data["val_bpb_std"] == pytest.approx(statistics.stdev(values), abs=1e-8)
    assert (data["seeds"], list(data["seed_results"])) == ([0, 42, 1234], ["0", "42", "1234"])
    for run in three:
        result, record = data["seed_results"][str(run.record.seed)], run.record
        assert result["val_bpb"] == round(record.stages["ttt"].bpb, 8)
        assert result["artifact_bytes"] == run["model.upar"].stat().st_size + len(CODE)
        assert record.train is not None
        assert result["train_time_ms"] == round(1000 * record.train.seconds)
    assert data["bytes_code"] == len(CODE)
    assert data["date"] == max(run.record.date for run in three)[:10]
    assert data["track"] == "non-record-16mb"
    assert all(data["compliance"].values())
    assert {"score_first_ttt", "three_seeds", "no_slot"} <= data["compliance"].keys()


def test_our_own_file_carries_the_records(three: list[Run], make: Make) -> None:
    data = load(out := make(three), "underpar.json")
    assert (data["format"], data["schema"], data["headline"]) == ("underpar.submission", 1, "ttt")
    assert [Record.from_json(part) for part in data["records"]] == [run.record for run in three]
    for name, facts in data["files"].items():
        assert facts["bytes"] == (out / name).stat().st_size
    assert "n - 1" in data["sd_formula"]


def test_a_log_in_the_published_formats(three: list[Run], make: Make) -> None:
    run = three[1]
    log = (make(three) / "train_seed42.log").read_text()
    for stage, label in {
        "float": "pre-quantization",
        "quantized": "quantized",
        "sliding": "quantized_sliding_window",
        "ttt": "legal_ttt_exact",
    }.items():
        found = re.search(
            rf"^{label} val_loss:([0-9.]+) val_bpb:([0-9.]+) eval_time:(\d+)ms$", log, re.MULTILINE
        )
        assert found, label
        score = run.record.stages[stage]
        assert float(found[1]) == round(score.nats_per_token, 8)
        assert float(found[2]) == round(score.bpb, 8)
        assert int(found[3]) == round(1000 * score.seconds)
    assert re.search(r"^step:1/30 train_loss:\d+\.\d{4} train_time:\d+ms step_avg:", log, re.M)
    assert log.startswith("Hyperparameters:\n  budget.bytes: 39500\n")
    assert f"\nCode size: {len(CODE)} bytes\n" in log
    size = run["model.upar"].stat().st_size
    assert f"\nSerialized model quantized+rans: {size} bytes\n" in log
    assert f"\nTotal submission size quantized+rans: {size + len(CODE)} bytes\n" in log
    assert "seed: 42\n" in log


def test_a_recipe_without_ttt(nano_run: Run, tmp_path: Path, make: Make) -> None:
    run = changed(nano_run.copy(tmp_path / "n").forget("ttt"), ("score.ttt", False))
    data = load(make([run]))
    assert data["val_bpb"] == round(run.record.stages["sliding"].bpb, 8)
    assert "score_first_ttt" not in data["compliance"]
    assert "val_bpb_std" not in data
    assert data["compliance"]["three_seeds"] is False
    readme = (tmp_path / "out" / "README.md").read_text()
    assert "+ sliding windows, bpb" in readme
    assert "one seed, so no deviation" in readme
    assert "3 or more" in readme


def test_the_proofs_of_the_records_are_shown(three: list[Run], make: Make) -> None:
    for run in three[:2]:
        edit(run, diagnostics={"proof": proof(run)})
    readme = (make(three) / "README.md").read_text()
    assert "none for seed 1234" in readme
    rows = list(tables(readme))[3]
    assert [row["seed"] for row in rows] == ["0", "42"]
    assert (rows[0]["coded bits"], rows[0]["claimed bits"]) == ("10,003", "9,999")
    assert rows[0]["difference"] == "+0.0368%"
    n_bytes = three[0].record.stages["ttt"].bytes
    assert number(rows[0]["coded bpb"]) == round(10_003 / n_bytes, 5)


# --- whole or not there -----------------------------------------------------------------------


def test_an_existing_folder_is_left_alone(three: list[Run], make: Make, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "README.md").write_text("mine")
    with pytest.raises(DataError, match="exists already"):
        make(three)
    assert contents(tmp_path / "out") == {str(tmp_path / "out" / "README.md"): b"mine"}


def test_a_full_disk_leaves_nothing(three: list[Run], make: Make, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        fill_disk(patch, largest=len(CODE))
        with pytest.raises(MachineError, match="No space left"):
            make(three)
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_ctrl_c_leaves_nothing(three: list[Run], tmp_path: Path) -> None:
    def interrupted(recipe: object, folder: Path) -> tuple[Path, Path]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        submit([run.out for run in three], tmp_path / "out", write_code=interrupted)
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_same_runs_same_folder(three: list[Run], make: Make, tmp_path: Path) -> None:
    make(three).rename(tmp_path / "first")
    make(three)
    names = [path.name for path in (tmp_path / "out").iterdir()]
    assert len(names) == 8
    for name in names:
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "first" / name).read_bytes()
