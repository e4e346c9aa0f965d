"""Log lines in the field's format, metrics as JSON."""

import json

import pytest

from tests.training import spec
from underpar import progress
from underpar.bits import Score
from underpar.train.counters import Counters
from underpar.train.log import log_step, position, report_score, show_step


@pytest.fixture
def folder(tmp_path):
    with progress.use(progress.Progress(tmp_path, quiet=True)):
        yield tmp_path


def test_position():
    assert position(spec(iterations=5200), Counters(step=100, elapsed=43.45)) == (
        "step:100/5200 train_time:43450ms step_avg:434.50ms"
    )
    assert position(spec(), Counters()) == "step:0/12 train_time:0ms step_avg:0.00ms"


def test_a_step_is_a_line_and_a_metric(folder):
    train = spec(iterations=1000, log_every=100)
    for step in (1, 10, 11, 99, 100):
        counters = Counters(step=step, elapsed=0.5 * step, losses=[3.25])
        log_step(train, counters, 0.5)
        show_step(train, counters, 0.5)
    lines = (folder / "log.txt").read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["step:1/1000", "step:10/1000", "step:100/1000"]
    assert lines[-1] == (
        "step:100/1000 train_loss:3.2500 train_time:50000ms step_avg:500.00ms "
        "lr_scale:0.5000 tok/s:256"
    )
    metrics = [json.loads(x) for x in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [m["step"] for m in metrics] == [1, 10, 11, 99, 100]
    assert metrics[-1] == {
        "step": 100,
        "loss": 3.25,
        "lr_scale": 0.5,
        "tokens_per_second": 256.0,
        "seconds": 50.0,
        "seconds_left": 450.0,
    }


def test_time_left_is_the_nearer_end(folder):
    counters = Counters(step=100, elapsed=50.0, losses=[1.0])
    show_step(spec(seconds=60, iterations=1000), counters, 1.0)
    assert json.loads((folder / "metrics.jsonl").read_text())["seconds_left"] == 10.0


def test_a_partial_score_says_so(folder):
    counters = Counters(step=5, elapsed=1.0)
    report_score(spec(), counters, Score(nats=20.0, tokens=8, bytes=10, coverage=1.0))
    report_score(spec(), counters, Score(nats=20.0, tokens=8, bytes=10, coverage=0.25))
    full, partial = (folder / "log.txt").read_text().splitlines()
    assert full.endswith("val_loss:2.5000 val_bpb:2.8854")
    assert "PARTIAL" in partial
    assert "val_bpb" not in partial
