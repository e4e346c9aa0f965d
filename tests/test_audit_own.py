"""The auditor audits us first: our scorer as it is shipped, in one file and in a submission.

The recipe is small because a packed file has its sizes folded in: nothing of it can be shrunk.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.commands import Run
from tests.submitting import load, three
from underpar import ship
from underpar.audit.audit import audit
from underpar.audit.review import Audit
from underpar.recipe.load import resolve
from underpar.recipe.schema import Recipe
from underpar.submit.folder import submit

__all__ = ["three"]

SMALL = [
    "model.vocab_size=64",
    "model.d_model=32",
    "model.n_head=4",
    "model.n_kv_head=2",
    "model.d_ff=64",
    "model.seq_len=64",
    "train.seconds=0",
    "train.warmup_steps=1",
    "train.compile=off",
    "train.dtype=float32",
    "train.iterations=6",
    "train.batch_tokens=256",
    "train.micro_tokens=256",
    "train.log_every=2",
    "quant.calibration_batches=2",
    "quant.passthrough=512",
    "score.dtype=float32",
    "score.stride=32",
    "score.ttt_chunk=256",
]
CHANGES = {
    "pr1413": [
        "model.n_layer=4",
        "model.xsa_last=4",
        "model.rope_dims=4",
        "model.loop_start=1",
        "model.loop_end=2",
        "train.reserve_seconds=0",
    ],
    "demo": ["model.bigram_buckets=64", "model.bigram_dim=16", "data.corpus=shards"],
}


def small(preset: str) -> Recipe:
    return resolve(preset, [*SMALL, *CHANGES[preset]])


def judged(path: Path) -> Audit:
    seen = audit(path)
    if any(run.status == "refused" for run in seen.runs):
        pytest.skip(f"no isolation here: {seen.runs[0].error}")
    return seen


def held(seen: Audit) -> None:
    verdicts = {c.name: (c.verdict, c.witness or c.why) for c in seen.conditions}
    assert {verdict for verdict, _ in verdicts.values()} == {"holds"}, verdicts
    assert not [finding for finding in seen.findings if finding.kind == "dynamic"]
    assert seen.exit_code == 0


@pytest.mark.slow
def test_our_packed_file_is_clean(tmp_path: Path) -> None:
    """Adaptation included: the headline is the last stage, which is test-time training."""
    path = tmp_path / "train_gpt.py"
    path.write_bytes(ship.packed(small("pr1413")))
    seen = judged(path)
    held(seen)
    assert "legal_ttt_exact" in str(seen.conditions[0].evidence)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", [small("pr1413"), small("demo")], ids=["pr1413", "demo"])
def test_our_readable_file_is_clean(recipe: Recipe, tmp_path: Path) -> None:
    path = tmp_path / "train_gpt.py"
    path.write_text(ship.readable(recipe, 0))
    held(judged(path))


@pytest.mark.slow
def test_our_submission_is_clean(three: list[Run], tmp_path: Path) -> None:
    def code(_recipe: Recipe, folder: Path) -> tuple[Path, Path]:
        return ship.write(small("demo"), folder)

    folder = tmp_path / "submission"
    submit([run.out for run in three], folder, write_code=code)
    seen = judged(folder)
    held(seen)
    claims = {claim.name: claim for claim in seen.claims}
    assert claims["size"].verdict == claims["consistency"].verdict == "holds"
    size = load(folder)["artifact_bytes_max"]
    assert f"{size:,} bytes" in claims["size"].measured


#: A second pass over the stream with what the first has taught the model, in books of its own.
ENDS = "        return finished(stage, [stream], bar, spec, adapter, total)\n"
AGAIN = """\
        old = stream.ledger
        stream.ledger = Ledger(old._tokens, old._byte_lengths, old._vocab_size)
        for chunk in stream.plan.chunks(size):
            stream.score_chunk(chunk, predictor, spec.window_batch, bar)
"""


@pytest.mark.slow
def test_our_scorer_with_a_second_pass_is_not(tmp_path: Path) -> None:
    """So the tests above can fail."""
    text = ship.readable(small("demo"), 0)
    assert text.count(ENDS) == 1
    path = tmp_path / "train_gpt.py"
    path.write_text(text.replace(ENDS, AGAIN + ENDS))
    seen = judged(path)
    assert "single_pass" in {c.name for c in seen.conditions if c.verdict == "violated"}
    assert seen.exit_code == 1
