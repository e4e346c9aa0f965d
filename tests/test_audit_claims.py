"""Claims against evidence: arithmetic that contradicts is a violation, anything less is not."""

import json
import math
from pathlib import Path

import pytest

from underpar.audit.claims import check, code_files, packed_bytes
from underpar.audit.claims_bytes import TEXT_BYTES
from underpar.audit.facts import Claim, Submission
from underpar.audit.logs import read_log

TOKENS = 40_540_160


def log(
    seed: int, bpb: float = 1.08, *, text_bytes: float = TEXT_BYTES, model: int = 15_900_000, **more
) -> str:
    loss = bpb * math.log(2) * text_bytes / TOKENS
    train, scoring = more.get("train", 588_000), more.get("scoring", 400_000)
    return (
        f"seed: {seed}\nval_tokens: {TOKENS}\nworld_size: {more.get('world', 8)}\n"
        "100/2000 val_loss: 9.0 val_bpb: 4.0\n"
        f"stopping_early: wallclock_cap train_time: {train}ms step: 10/20\n"
        "Serialized model: 99000000 bytes\n"
        "Code size: 16719 bytes\n"
        f"Serialized model quantized+brotli: {model} bytes\n"
        f"Total submission size quantized+brotli: {model + 16719} bytes\n"
        f"final_exact val_loss:{loss:.8f} val_bpb:{bpb:.8f} eval_time:{scoring}ms\n"
    )


def claims(documents: dict[str, str], source: str = "x = 1\n", size: int = 16_719, **more) -> dict:
    sub = Submission(
        root=Path("records/track_10min_16mb/a"),
        script=Path("records/track_10min_16mb/a/train_gpt.py"),
        source=source,
        packed=False,
        files={"train_gpt.py": size, **more.get("files", {})},
        settings={},
        settings_from="",
        documents=documents,
        notes=more.get("notes", ()),
    )
    return {claim.name: claim for claim in check(sub)}


def run(**more) -> dict[str, Claim]:
    """Three seeds in order, with metadata; keywords change the logs, `meta` the metadata."""
    bpbs = {"0": 1.0790, "42": 1.0800, "1234": 1.0810}
    meta = {
        "val_bpb": 1.08,
        "hardware": "8xH100 80GB SXM",
        "seed_results": {seed: {"val_bpb": bpb} for seed, bpb in bpbs.items()},
        "compliance": {"artifact_under_16mb": True, "three_seeds": True},
        **more.pop("meta", {}),
    }
    documents = {f"train_seed{seed}.log": log(int(seed), bpb, **more) for seed, bpb in bpbs.items()}
    return claims({"submission.json": json.dumps(meta), **documents})


def verdicts(found: dict[str, Claim]) -> dict[str, str]:
    return {name: claim.verdict for name, claim in found.items()}


def test_in_order() -> None:
    found = verdicts(run())
    assert found.pop("significance") == "unknown"
    assert set(found.values()) == {"holds"}
    assert set(found) == {
        "size", "train_time", "eval_time", "bytes", "coverage", "seeds", "consistency"
    }  # fmt: skip


def test_over_size_and_the_flag_that_denies_it() -> None:
    found = run(model=16_100_000)
    assert found["size"].verdict == "violated"
    assert "16,116,719" in found["size"].measured
    assert found["consistency"].verdict == "violated"
    assert "artifact_under_16mb" in found["consistency"].measured


def test_size_that_packing_would_save_is_not_condemned() -> None:
    source = "x = 1\n" * 2000
    found = claims({"train.log": log(1, model=15_990_000)}, source, len(source))
    assert found["size"].verdict == "unknown"
    assert "packed" in found["size"].note
    assert packed_bytes(source) < 2000


def test_siblings_that_run_are_counted() -> None:
    source = 'import helper\nopen("state.c")\n'
    sub = Submission(
        Path("a"), Path("a/train_gpt.py"), source, False,
        {"train_gpt.py": 30, "helper.py": 7, "state.c": 5, "prepare.py": 9000, "README.md": 99},
        {}, "", {}, ("old.py starts train_gpt.py",),
    )  # fmt: skip
    assert code_files(sub) == {"train_gpt.py": 30, "helper.py": 7, "state.c": 5}


@pytest.mark.parametrize("name", ["train", "scoring"])
def test_time(name: str) -> None:
    claim = {"train": "train_time", "scoring": "eval_time"}[name]
    assert run(**{name: 603_000})[claim].verdict == "holds"
    assert run(**{name: 688_000})[claim].verdict == "violated"
    assert run(**{name: 688_000}, world=1)[claim].verdict == "unknown"
    assert run(**{name: 688_000}, meta={"hardware": "1xA100"})[claim].verdict == "unknown"
    free = {"track": "non-record-unlimited-compute-16mb"}
    assert run(**{name: 688_000}, meta=free)[claim].verdict == "unknown"


def test_time_in_the_metadata() -> None:
    assert run(meta={"eval_ops_seconds": 688})["eval_time"].verdict == "violated"


def test_implied_bytes() -> None:
    wrong = run(text_bytes=TEXT_BYTES * 1.177)["bytes"]
    assert wrong.verdict == "violated"
    assert "+17.70%" in wrong.measured
    assert run(text_bytes=TEXT_BYTES * 0.998)["bytes"].verdict == "holds"
    assert run(text_bytes=TEXT_BYTES * 1.02)["bytes"].verdict == "unknown"


def test_a_line_that_mixes_models_is_not_a_wrong_table() -> None:
    text = log(1) + "mixed val_loss:2.8 val_bpb:0.9\n"
    assert claims({"train.log": text})["bytes"].verdict == "unknown"


def test_an_unknown_export_is_not_condemned() -> None:
    text = log(1, text_bytes=2 * TEXT_BYTES).replace(str(TOKENS), "77000000")
    found = claims({"train.log": text})
    assert found["bytes"].verdict == "unknown"
    assert found["coverage"].verdict == "unknown"


def test_seeds() -> None:
    one = claims({"train_seed1.log": log(1)})
    assert one["seeds"].verdict == "unknown"
    promised = {"seeds": [1, 2], "compliance": {"three_seeds": True}}
    found = claims({"train_seed1.log": log(1), "submission.json": json.dumps(promised)})
    assert found["seeds"].verdict == "violated"


def test_significance() -> None:
    better = run(meta={"comparison_baseline_bpb": 1.12})["significance"]
    assert better.verdict == "holds"
    assert "sd 0.00100 (n - 1)" in better.measured
    assert run(meta={"comparison_baseline_bpb": 1.082})["significance"].verdict == "unknown"


def test_metadata_against_logs() -> None:
    lied = run(meta={"val_bpb": 1.07})["consistency"]
    assert lied.verdict == "violated"
    assert "outside of its seeds" in lied.measured
    seeds = {"0": {"val_bpb": 1.06}, "42": {"val_bpb": 1.08}, "1234": {"val_bpb": 1.081}}
    wrong = run(meta={"seed_results": seeds})["consistency"]
    assert wrong.verdict == "violated"
    assert "seed 0: metadata 1.06, nearest in train_seed0.log 1.079" in wrong.measured
    seeds["0"] = {"val_bpb": 1.0785}
    again = run(meta={"seed_results": seeds})["consistency"]
    assert again.verdict == "holds"
    assert "seed 0" in again.note


def test_notes() -> None:
    found = run(meta={"val_bpb_std": 0.0001})["consistency"]
    assert found.verdict == "holds"
    assert "val_bpb_std 0.0001, from its seeds 0.00100" in found.note


def test_nothing_to_go_by() -> None:
    found = verdicts(claims({}))
    assert set(found.values()) == {"unknown"}


def test_log_facts() -> None:
    source = "print(f'final val_loss:1.0 val_bpb:1.0')\nval_tokens: 5\n"
    facts = read_log(
        "train_seed7.log", source + log(7) + "final2 val_loss:2.0 val_bpb:1.0\n", source
    )
    assert [score.label for score in facts.scores] == ["final_exact", "final2"]
    assert (facts.seed, facts.tokens, facts.world) == ("7", TOKENS, 8)
    assert (facts.code_bytes, facts.model_bytes, facts.total_bytes) == (16719, 15900000, 15916719)
    assert (facts.train_seconds, facts.scores[0].seconds) == (588.0, 400.0)
