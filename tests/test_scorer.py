"""The scorer: three stages, one process or two, and what it says about itself."""

import copy
import io
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests import children
from tests.scoring import LOOPED, MODEL, SCORE, V, small_model, small_stream
from underpar import dist, progress
from underpar.artifact.pack import pack
from underpar.data.tokenizer import ByteTokenizer
from underpar.data.validation import ValidationSet
from underpar.errors import DataError
from underpar.model import loss
from underpar.score.file import check_tokenizer, score
from underpar.score.scorer import score_model
from underpar.score.windows import WindowPlan

STAGES = ("plain", "sliding", "ttt")


@pytest.mark.parametrize("stage", ["plain", "sliding"])
@pytest.mark.parametrize("architecture", [MODEL, LOOPED], ids=["cores", "looped"])
def test_equals_one_window_at_a_time(architecture, stage):
    model, stream = small_model(architecture).eval(), small_stream()
    result = score_model(model, SCORE, stream, stage)
    ids = torch.from_numpy(stream.tokens.astype(np.int64))
    nll = np.full(stream.n_targets, np.nan, dtype=np.float32)
    for w in WindowPlan(stream.n_targets, 16, 16 if stage == "plain" else SCORE.stride):
        with torch.no_grad():
            nats = loss(
                model,
                ids[None, w.start : w.end],
                ids[None, w.start + 1 : w.end + 1],
                reduction="none",
            )
        nll[w.first : w.end] = nats[0, w.first - w.start :].numpy()
    np.testing.assert_allclose(result.nll, nll, atol=1e-5)
    assert result.score.nats == pytest.approx(float(nll.sum(dtype=np.float64)), rel=1e-6)
    assert result.score.complete
    assert result.score.bytes == stream.true_bytes
    assert result.steps == 0


def test_adapting_helps_on_text_with_a_pattern():
    stream = small_stream(1201)
    sliding = score_model(small_model(), SCORE, stream, "sliding").score
    ttt = score_model(small_model(), SCORE, stream, "ttt")
    assert ttt.score.bpb < 0.8 * sliding.bpb
    assert ttt.steps == 24 * 2  # 25 chunks, all but the last, two epochs of one step
    assert (ttt.score.tokens, ttt.score.bytes) == (sliding.tokens, sliding.bytes)


def test_the_first_chunk_is_scored_as_without_adapting():
    stream = small_stream()
    sliding = score_model(small_model(), SCORE, stream, "sliding").nll
    ttt = score_model(small_model(), SCORE, stream, "ttt").nll
    np.testing.assert_array_equal(ttt[:48], sliding[:48])
    assert not np.array_equal(ttt[60:96], sliding[60:96])


@pytest.mark.parametrize("n_tokens", [2, 5, 17, 48])
def test_short_streams_are_scored_whole(n_tokens):
    for stage in STAGES:
        score = score_model(small_model(), SCORE, small_stream(n_tokens), stage).score
        assert (score.tokens, score.coverage) == (n_tokens - 1, 1.0)


@pytest.mark.parametrize("stage", STAGES)
def test_batch_sizes_do_not_matter(stage):
    one, many = (
        score_model(small_model(), replace(SCORE, window_batch=b), small_stream(), stage).nll
        for b in (1, 7)
    )
    np.testing.assert_allclose(one, many, atol=1e-4)


def test_scoring_leaves_a_model_as_it_was():
    model = small_model()
    model.train()
    before = copy.deepcopy(model.state_dict())
    score_model(model, replace(SCORE, dtype="bfloat16"), small_stream(), "sliding")
    assert model.training
    assert model.compute_dtype == torch.float32
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


def test_dtype_of_the_settings_is_used():
    exact, rough = (
        score_model(small_model(), replace(SCORE, dtype=d), small_stream(), "plain").score.nats
        for d in ("float32", "bfloat16")
    )
    assert 1e-6 < abs(exact - rough) / exact < 0.05


def test_a_limited_score_says_that_it_is_partial():
    stream = small_stream()
    whole = score_model(small_model(), SCORE, stream, "sliding")
    part = score_model(small_model(), SCORE, stream, "sliding", limit=53)
    assert part.score.coverage == 53 / 210
    assert str(part.score).startswith("PARTIAL")
    np.testing.assert_allclose(part.nll[:53], whole.nll[:53], atol=1e-5)
    assert np.isnan(part.nll[53:]).all()


def test_context_of_the_model():
    result = score_model(small_model(), replace(SCORE, context=0), small_stream(40), "ttt")
    assert result.spec.context == 16
    assert not result.steps  # 39 targets: the only chunk is the last one


# --- from a file ------------------------------------------------------------------------------


def byte_stream(text="Fellow citizens: " * 8):
    ids = np.concatenate([[256], ByteTokenizer().encode(text)])
    return ValidationSet.from_tokens(ids, ByteTokenizer())


def small_file(folder, spec):
    model = small_model(spec)
    pack(
        folder / "model.upar",
        {path: weight.detach() for path, weight in model.named_parameters()},
        model_spec=spec,
        score_spec=SCORE,
        looping=model.looping,
        dtype="float32",
        tokenizer=ByteTokenizer(),
        recipe_digest="0" * 64,
        compressor="lzma",
        byte_shuffle=False,
    )
    return folder / "model.upar"


@pytest.mark.parametrize("architecture", [MODEL, LOOPED], ids=["cores", "looped"])
def test_a_file_is_scored_with_its_own_settings(tmp_path, architecture):
    spec = replace(architecture, vocab_size=257)
    path, stream = small_file(tmp_path, spec), byte_stream()
    for stage in STAGES:  # each from the file: the model that one has adapted is not the next one's
        live = score_model(small_model(spec), SCORE, stream, stage)
        result = score(path, stream, stage)
        np.testing.assert_array_equal(result.nll, live.nll)
    log = io.StringIO()
    with progress.use(progress.Progress(stream=log)):
        score(path, stream, "ttt", overrides=replace(SCORE, ttt_chunk=1024))
    assert "no step taken" in log.getvalue()
    result = score(path, stream, "sliding", overrides=replace(SCORE, stride=16))
    assert result.score.nats == score(path, stream, "plain").score.nats
    with pytest.raises(DataError, match="another tokenizer"):
        score(path, small_stream(), "plain")


def test_text_of_another_tokenizer_is_refused():
    stream = small_stream(vocab_size=V)
    with pytest.raises(DataError, match="another tokenizer"):
        check_tokenizer(ByteTokenizer(), stream)  # ids fit, byte lengths do not
    smaller = SimpleNamespace(vocab_size=V - 2, kind="sentencepiece")
    with pytest.raises(DataError, match=f"{V - 2} symbols"):
        check_tokenizer(smaller, stream)
    check_tokenizer(ByteTokenizer(), byte_stream())


# --- two processes ----------------------------------------------------------------------------

#: chunk sizes with 3, 1 and 2 sequences: two ranks get 1 + 2, 0 + 1 and 1 + 1 of them
ADAPTING = [
    SCORE,
    replace(SCORE, ttt_chunk=24),
    replace(SCORE, ttt_chunk=32, ttt_optimizer="adamw"),
]
CASES = [("plain", SCORE), ("sliding", SCORE), *(("ttt", spec) for spec in ADAPTING)]


def _rank(folder):
    out = {}
    with dist.processes():
        for i, (stage, spec) in enumerate(CASES):
            result = score_model(small_model(), spec, small_stream(), stage)
            s = result.score
            out[f"{i}"] = [s.nats, s.tokens, s.bytes, s.coverage]
            out[f"{i}-nll"] = result.nll
        np.savez(f"{folder}/{dist.rank()}.npz", **out)


def test_two_processes_score_as_one(tmp_path):
    children.ranks(_rank, str(tmp_path))
    with np.load(tmp_path / "0.npz") as a, np.load(tmp_path / "1.npz") as b:
        ranks = [dict(a), dict(b)]
    for i, (stage, spec) in enumerate(CASES):
        one = score_model(small_model(), spec, small_stream(), stage)
        for mine in ranks:
            nats, *exact = mine[f"{i}"]
            assert exact == [one.score.tokens, one.score.bytes, 1.0]
            rtol = 1e-4 if stage == "ttt" else 1e-6
            assert nats == pytest.approx(one.score.nats, rel=rtol)
            np.testing.assert_allclose(mine[f"{i}-nll"], one.nll, atol=2e-3)
        assert ranks[0][f"{i}"].tolist() == ranks[1][f"{i}"].tolist()
