"""Choosing dtype and compiler; compiled graphs that notice loops and weight hooks."""

import shutil

import pytest
import torch

from tests.training import LOOPED, T, V, spec
from underpar import progress
from underpar.errors import MachineError
from underpar.model import GPT, loss
from underpar.quant.qat import install
from underpar.recipe.schema import QuantSpec
from underpar.train import compute
from underpar.train.warmup import WeightHooks


def batch(rows=4):
    ids = torch.randint(0, V, (rows, T + 1), generator=torch.Generator().manual_seed(0))
    return ids[:, :-1], ids[:, 1:]


def busy_model():
    """Weights away from the start, where half of the matrices are zero."""
    model = GPT(LOOPED, seed=1).train()
    g = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=g))
    return model


def auto(**changes):
    return spec(**{"dtype": "auto", "compile": "auto", "deterministic": False, **changes})


@pytest.fixture
def log(tmp_path):
    with progress.use(progress.Progress(tmp_path / "log", quiet=True)):
        yield lambda: (tmp_path / "log" / "log.txt").read_text()


def choose(model, train, recorded=None):
    return compute.choose(model, train, batch(), 2, recorded)


def check_guards(backend):
    """Eager and compiled agree with loops off and on, and with hooks on and off."""
    model, (ids, targets) = busy_model(), batch()
    compiled = compute.compiled_loss(model, backend)
    hooks = WeightHooks(model, lambda m: install(m, QuantSpec(matrix_bits=3, passthrough=0)))
    assert hooks
    seen = []
    for looping, hooked in ((False, False), (True, False), (True, True), (False, False)):
        model.looping = looping
        (hooks.on if hooked else hooks.off)()
        want = loss(model, ids, targets)
        got = compiled(ids, targets)
        assert torch.allclose(got, want, rtol=1e-5)
        got.backward()
        seen.append(want.item())
    assert len({round(x, 6) for x in seen}) == 3  # three different graphs, or nothing was tested
    assert seen[0] == seen[3]
    hooks.on()
    model.eval()
    assert loss(model, ids, targets).item() == pytest.approx(seen[0])


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["eager", "inductor"])  # guards alone, and the C++ behind them
def test_compiled_graphs_notice_loops_and_hooks(backend):
    check_guards(backend)


@pytest.mark.slow
def test_hooks_put_back_on_need_no_new_graph():
    model, (ids, targets) = busy_model(), batch()
    compiled = compute.compiled_loss(model, "eager")
    hooks = WeightHooks(model, lambda m: install(m, QuantSpec(matrix_bits=4, passthrough=0)))
    for _ in range(2):
        for switch in (hooks.off, hooks.on):
            switch()
            compiled(ids, targets)
    with torch.compiler.set_stance("fail_on_recompile"):
        for switch in (hooks.off, hooks.on, hooks.off):
            switch()
            compiled(ids, targets)


def test_auto_measures_and_leaves_the_model_as_it_was():
    model = busy_model()
    before = [p.detach().clone() for p in model.parameters()]
    chosen = choose(model, auto())
    assert chosen.dtype in (torch.float32, torch.bfloat16)
    assert model.compute_dtype == chosen.dtype
    assert not chosen.compiled  # twelve steps of milliseconds do not win a compilation back
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters()))
    assert all(p.grad is None for p in model.parameters())
    assert chosen.loss(*batch()).item() == loss(model, *batch()).item()


def test_the_faster_dtype_wins(monkeypatch):
    for fast in (torch.float32, torch.bfloat16):
        monkeypatch.setattr(
            compute,
            "micro_step_seconds",
            lambda model, *_, fast=fast, **__: 1.0 if model.compute_dtype == fast else 2.0,
        )
        assert choose(busy_model(), auto(compile="off")).dtype == fast


def test_deterministic_does_not_measure(monkeypatch):
    monkeypatch.setattr(compute, "micro_step_seconds", None)  # calling it would fail
    chosen = choose(busy_model(), auto(deterministic=True))
    assert (chosen.dtype, chosen.compiled) == (torch.float32, False)


def test_a_recorded_choice_is_repeated(monkeypatch):
    monkeypatch.setattr(compute, "micro_step_seconds", None)
    chosen = choose(busy_model(), auto(), recorded=("bfloat16", False))
    assert (chosen.dtype, chosen.compiled) == (torch.bfloat16, False)


def worth_it(monkeypatch):
    monkeypatch.setattr(compute, "WORTH_SECONDS", 0.0)


def test_long_trainings_are_compiled(monkeypatch):
    worth_it(monkeypatch)
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/" + name)
    monkeypatch.setattr(compute, "compiled_loss", compute.eager_loss)  # the decision, not the wait
    assert choose(busy_model(), auto()).compiled


def test_no_compiler_is_eager_with_a_notice(monkeypatch, log):
    worth_it(monkeypatch)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert not choose(busy_model(), auto()).compiled
    assert log() == "no C++ compiler (g++ or clang++): running eagerly (slower)\n"


def test_a_broken_compiler_is_eager_with_a_notice(monkeypatch, log):
    def broken(model):
        def fails(ids, targets):
            raise RuntimeError("g++: cannot execute cc1plus\nand a page of command line")

        return fails

    worth_it(monkeypatch)
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/" + name)
    monkeypatch.setattr(compute, "compiled_loss", broken)
    model = busy_model()
    chosen = choose(model, auto())
    assert not chosen.compiled
    assert log().count("\n") == 1
    assert "compiling failed (RuntimeError: g++: cannot execute cc1plus)" in log()
    assert chosen.loss(*batch()).isfinite()
    with pytest.raises(MachineError, match="cannot compile the model"):
        choose(model, auto(compile="on"))
    with pytest.raises(MachineError, match="cannot compile the model"):
        choose(model, auto(), recorded=("float32", True))


def test_numerics_are_put_back():
    before = torch.are_deterministic_algorithms_enabled(), torch.get_float32_matmul_precision()
    with compute.numerics(spec(deterministic=True), torch.device("cpu")):
        assert torch.are_deterministic_algorithms_enabled()
    after = torch.are_deterministic_algorithms_enabled(), torch.get_float32_matmul_precision()
    assert after == before


def test_bfloat16_is_near_float32():
    model = busy_model()
    full = choose(model, auto(dtype="float32")).loss(*batch()).item()
    half = choose(model, auto(dtype="bfloat16")).loss(*batch()).item()
    assert half == pytest.approx(full, rel=0.02)
    assert half != full
