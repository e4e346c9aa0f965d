"""Legal and violating twins of every class get the right verdicts, with witnesses."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest

from tests import audit_runner
from underpar.audit import probe
from underpar.audit.facts import Condition, Finding, Job, Outcome

#: class -> conditions that its violating twin must be found to break.
FAST = {
    "two_pass": ("causal", "single_pass"),
    "score_after_update": ("causal", "score_first"),
}
SLOW = {
    "lookahead": ("causal",),
    "rescored": ("single_pass",),
    "warm_up": ("causal", "score_first"),
    "pre_quant_ttt": ("causal", "score_first", "single_pass"),
    "multi_epoch_ttt_last_score": ("causal", "score_first"),
    "slot_batch_leak": ("causal", "single_pass"),
    "slot": ("causal", "score_first"),
    "ngram_target_in_key": ("normalized",),
    "unnormalized": ("normalized",),
    "noncausal_gate": ("normalized",),
    "stored_arrays": ("causal", "single_pass"),
}


@cache
def judged(name: str) -> tuple[dict[str, Condition], list[Finding]]:
    outcomes, conditions, findings = probe.investigate(
        audit_runner.submission(name), audit_runner.run, workers=1
    )
    assert all(o.status == "finished" for o in outcomes), [o.error for o in outcomes]
    return {c.name: c for c in conditions}, findings


def check(name: str, broken: tuple[str, ...]) -> None:
    legal, _ = judged(f"{name}_legal")
    for condition in legal.values():
        assert condition.verdict == "holds", condition
    violating, _ = judged(f"{name}_violating")
    for condition in broken:
        assert violating[condition].verdict == "violated", violating[condition]
        assert "token" in violating[condition].witness
        assert "line" in violating[condition].witness or name == "rescored"


@pytest.mark.parametrize("name", FAST)
def test_twins(name: str) -> None:
    check(name, FAST[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_twins_that_need_many_runs(name: str) -> None:
    check(name, SLOW[name])


def test_an_unnormalized_score_is_shown_by_its_alphabet() -> None:
    conditions, _ = judged("ngram_target_in_key_violating")
    assert conditions["normalized"].verdict == "violated"
    assert conditions["normalized"].evidence["sum"] > 1.05


def test_byte_counts_are_compared_with_the_decoded_text() -> None:
    _, legal = judged("byte_count_legal")
    assert not [f for f in legal if f.code == "byte_count"]
    _, violating = judged("byte_count_violating")
    (finding,) = [f for f in violating if f.code == "byte_count"]
    assert "is counted as" in finding.message


def test_a_tail_scored_again_is_a_finding_and_no_violation() -> None:
    conditions, findings = judged("rescored_legal")
    assert conditions["single_pass"].verdict == "holds"
    assert [f.code for f in findings] == ["rescored_positions"]


def test_a_warm_up_that_is_undone_is_cleared_by_the_flip() -> None:
    conditions, findings = judged("warm_up_legal")
    assert conditions["score_first"].verdict == "holds"
    assert "harmless_warm_up" in [f.code for f in findings]


def test_a_script_that_fails_gets_no_verdict() -> None:
    sub = audit_runner.submission("lookahead_legal")
    broken = replace(sub, source=sub.source.replace("evaluate(model, load", "missing(load"))
    _, conditions, findings = probe.investigate(broken, audit_runner.run, workers=1)
    assert {c.verdict for c in conditions} == {"not_exercised"}
    assert "no recorded sum" in conditions[0].why or "did not run" in conditions[0].why
    assert not findings


def test_a_run_that_was_random_once_condemns_nobody() -> None:
    sub = audit_runner.submission("byte_count_legal")
    calls = []

    def shaken(job: Job) -> Outcome:
        calls.append(job)
        if len(calls) != 2:
            return audit_runner.run(job)
        source = job.source.replace("manual_seed(0)", "manual_seed(1)")
        return audit_runner.run(replace(job, source=source))

    _, conditions, _ = probe.investigate(sub, shaken, workers=1)
    assert calls[1].stream.flips
    assert {c.verdict for c in conditions} == {"holds"}
    assert conditions[0].evidence["noise"] > 0


def test_a_claimed_line_behind_a_switch_is_brought_about() -> None:
    sub = audit_runner.submission("byte_count_legal")
    source = sub.source.replace(
        'print(f"final val',
        'if int(os.environ.get("MIX_ENABLED", "0")):\n        print(f"final mix val',
    )
    assert source != sub.source
    documents = {
        "submission.json": '{"val_bpb": 1.25}',
        "train.log": "step:5 val_bpb:1.3\nfinal mix val_loss:2.0 val_bpb:1.2500\n",
    }
    hidden = replace(sub, source=source, documents=documents)
    _, conditions, _ = probe.investigate(hidden, audit_runner.run, workers=1)
    assert {c.verdict for c in conditions} == {"holds"}
    assert conditions[0].evidence["assumed"] == {"MIX_ENABLED": "1"}


def test_a_claimed_line_that_is_never_printed_is_said() -> None:
    documents = {
        "submission.json": '{"val_bpb": 1.25}',
        "train.log": "step:5 val_bpb:1.3\nnowhere val_loss:2.0 val_bpb:1.2500\n",
    }
    sub = replace(audit_runner.submission("byte_count_legal"), documents=documents)
    _, conditions, _ = probe.investigate(sub, audit_runner.run, workers=1)
    for condition in conditions:
        assert "claimed line (nowhere val loss) was not printed" in condition.why
        assert "not printed" in condition.evidence["assumed"]


def test_a_score_that_is_not_the_recorded_sum_does_not_hold() -> None:
    sub = audit_runner.submission("byte_count_legal")
    source = sub.source.replace(
        "loss = (loss_sum / tokens).item()", "loss = (loss_sum / tokens).item() * 0.97"
    )
    assert source != sub.source
    _, conditions, _ = probe.investigate(replace(sub, source=source), audit_runner.run, workers=1)
    assert "holds" not in {c.verdict for c in conditions}
