"""The recorder: positions, codes of numbers, training uses, forks."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from tests import audit_runner
from underpar.audit import alphabets, evidence, headline, probe
from underpar.audit.child import recorder_sums, shards
from underpar.audit.child.recorder_codes import NONE, SCORE, Lineage
from underpar.audit.child.recorder_positions import Positions
from underpar.audit.facts import StreamSpec

STREAM = shards.stream({"vocab": 64, "n_tokens": 1025, "seed": 3, "flips": []})


def test_positions_of_a_slice_are_found() -> None:
    found = Positions(STREAM).locate(STREAM[100:180])
    assert found is not None
    assert found.tolist() == list(range(100, 180))


def test_positions_of_rows_laid_end_to_end() -> None:
    starts = [0, 16, 32, 900, 48]
    flat = np.concatenate([STREAM[s : s + 64] for s in starts])
    found = Positions(STREAM).locate(flat)
    assert found is not None
    wanted = np.concatenate([np.arange(s, s + 64) for s in starts])
    assert np.array_equal(found, wanted)


def test_padding_and_strangers_have_no_position() -> None:
    rng = np.random.default_rng(0)
    places = Positions(STREAM)
    found = places.locate(np.concatenate([STREAM[5:40], np.zeros(30, np.uint16)]))
    assert found is not None
    assert found[:35].tolist() == list(range(5, 40))
    assert (found[35:] == -1).all()
    assert places.locate(rng.integers(4, 64, 4000).astype(np.uint16)) is None


def test_a_sum_is_laid_out_with_the_values_it_had() -> None:
    lineage = Lineage()
    codes = lineage.event(SCORE, 7, np.arange(4), nll=np.array([1.0, 2.0, 3.0, 4.0]))
    whole = lineage.sum(codes[:2], np.array([1.0, 2.5]), 3.5, 8)
    mean = lineage.sum(codes[2:], np.array([3.0, 4.0]), 3.5, 8)
    chain = lineage.add(whole, mean, 3.5, 7.0, 9)  # the mean times two elements
    table = lineage.lay_out(chain)
    assert sorted(table["pos"].tolist()) == [0, 1, 2, 3]
    assert np.allclose(np.sort(table["value"]), [1.0, 2.5, 3.0, 4.0])
    assert np.allclose(table["weight"], 1.0)


def test_masked_elements_do_not_contribute() -> None:
    lineage = Lineage()
    codes = lineage.event(SCORE, 1, np.arange(3))
    bag = lineage.sum(codes, np.array([1.0, 0.0, 2.0]), 3.0, 1)
    assert lineage.lay_out(bag)["pos"].tolist() == [0, 2]
    assert lineage.sum(codes, np.zeros(3), 0.0, 1) == NONE


@cache
def outcome_of(name: str):
    sub = audit_runner.submission(name)
    job = probe.job_for(sub, 64, 1)
    return sub, audit_runner.run(job)


@pytest.mark.parametrize(
    "name",
    ["pre_quant_ttt_legal", "rescored_legal", "ngram_target_in_key_legal", "unnormalized_legal"],
)
def test_the_recorded_sum_is_the_reported_number(name: str) -> None:
    sub, outcome = outcome_of(name)
    assert outcome.status == "finished", outcome.error
    found = headline.find(outcome, sub, 64)
    assert found is not None
    assert found.linked
    assert found.error < 1e-6
    assert found.scores.known == 1.0


def test_tensor_numpy_and_python_paths_keep_every_position() -> None:
    for name in (
        "byte_count_legal", "ngram_target_in_key_violating", "unnormalized_violating",
        "stored_arrays_violating",
    ):  # fmt: skip
        sub, outcome = outcome_of(name)
        found = headline.find(outcome, sub, 64)
        assert found is not None
        assert np.array_equal(np.unique(found.scores.pos), np.arange(1, 2049))


def test_training_uses_come_after_scores_in_a_legal_loop() -> None:
    sub, outcome = outcome_of("score_after_update_legal")
    trace, found = outcome.traces[0], headline.find(outcome, sub, 64)
    assert found is not None
    used = {}
    for position, seq in zip(trace.t_pos.tolist(), trace.t_seq.tolist()):
        used.setdefault(position, seq)
    assert len(used) > 2000
    for position, seq in zip(found.scores.pos.tolist(), found.scores.seq.tolist()):
        assert seq < used[position]


def test_a_fork_scores_as_a_run_from_the_start() -> None:
    sub = audit_runner.submission("ngram_target_in_key_legal")
    job = probe.job_for(sub, 32, 1)
    job = replace(job, stream=StreamSpec(32, 513, 1))
    base = audit_runner.run(job)
    found = headline.find(base, sub, 32)
    assert found is not None
    flipped = replace(job, stream=StreamSpec(32, 513, 1, ((400, 20),)))
    outside = headline.find(audit_runner.run(flipped), sub, 32)
    assert outside is not None
    for clock in evidence.fork_times(base.traces[0], found):
        replay = {"clock": clock, "printed": 1, "line": int(found.scores.line[-1])}
        replay |= {"scored": 10**9, "flips": [[400, 20]]}
        forked = audit_runner.run(replace(job, shrink={**job.shrink, "replay": replay}))
        inside = alphabets.forks(forked, [20], 1.0)[20]
        order = np.argsort(inside.seq, kind="stable")
        assert np.array_equal(inside.pos[order], outside.scores.pos)
        assert np.allclose(inside.nll[order], outside.scores.nll)


def test_a_score_taken_back_leaves_nothing() -> None:
    lineage = Lineage()
    old = lineage.event(SCORE, 1, np.arange(4))
    new = lineage.event(SCORE, 2, np.arange(4))
    first = lineage.sum(old[:2], np.array([1.0, 2.0]), 3.0, 1)
    second = lineage.sum(old[2:], np.array([3.0, 4.0]), 7.0, 1)
    again = lineage.sum(new[:2], np.array([0.5, 0.5]), 1.0, 2)
    total = lineage.join(first, second, 3.0, 7.0, 1)
    total = lineage.join(total, first, 10.0, -3.0, 2)
    total = lineage.join(total, again, 7.0, 1.0, 2)
    table = recorder_sums.joined(lineage.lay_out(total))
    assert sorted(zip(table["pos"].tolist(), table["value"].tolist())) == [
        (0, 0.5), (1, 0.5), (2, 3.0), (3, 4.0),
    ]  # fmt: skip


def test_a_printed_sum_stays_what_it_was_when_a_gain_is_taken_of_it() -> None:
    lineage = Lineage()
    old, new = (lineage.event(SCORE, i, np.arange(32)) for i in (1, 2))
    before = lineage.sum(old, np.full(32, 2.0), 64.0, 1)
    after = lineage.sum(new, np.full(32, 1.0), 32.0, 2)
    lineage.join(before, after, 2.0, -1.0, 3)
    groups = lineage.groups(8, {-before - 2, -after - 2})
    assert {before, after} <= set(groups)
    assert lineage.lay_out(after)["value"].tolist() == [1.0] * 32


def test_the_bytes_of_a_token_are_one_contribution() -> None:
    lineage = Lineage()
    codes = lineage.event(SCORE, 1, np.arange(2)).tolist()
    total = codes[0]
    for code, before in ((codes[0], 1.0), (codes[1], 2.0), (codes[1], 3.0)):
        total = lineage.join(total, code, before, 1.0, 1)
    table = recorder_sums.joined(lineage.lay_out(total))
    assert table["pos"].tolist() == [0, 1]
    assert table["value"].tolist() == [2.0, 2.0]
