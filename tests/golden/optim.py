"""newton_schulz.npz, muon.npz, schedule.json: the optimizer, schedules, averages, index lists."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tests.golden import Check, CheckFunction, close, equal
from underpar.model import depth
from underpar.model.embedding import bigram_rows
from underpar.recipe.schema import ModelSpec
from underpar.score.adapt import chunk_lr_multiplier
from underpar.train import schedule
from underpar.train.averaging import EMA, SWA
from underpar.train.muon import Muon, newton_schulz

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
RTOL = 1e-9


def check_newton_schulz(path: Path) -> Iterator[Check]:
    data = np.load(path, allow_pickle=False)
    for key in data.files:
        kind, _, shape = key.partition("/")
        if not kind.startswith("out_"):
            continue
        precision = kind.removeprefix("out_")
        got = newton_schulz(torch.from_numpy(data[f"in/{shape}"]), 5, DTYPES[precision])
        atol = 1e-5 if precision == "fp32" else 0.05
        yield close(f"{path.name} {key}", got.float().numpy(), data[key], atol=atol)


def check_muon(path: Path) -> Iterator[Check]:
    data = np.load(path, allow_pickle=False)
    variants = {key.split("/")[0] for key in data.files if key.startswith("param_")}
    for variant in sorted(variants):
        _, recipe, precision = variant.split("_")
        parameters = {
            key.split("/")[1]: nn.Parameter(torch.from_numpy(data[key].copy()))
            for key in data.files
            if key.startswith("param0/")
        }
        muon = Muon(
            parameters,
            lr=1.0,
            weight_decay=float(data[f"wd_{recipe}"]),
            row_norm=recipe == "1413",
            dtype=DTYPES[precision],
        )
        atol = 1e-6 if precision == "fp32" else 1e-3
        for step, (lr, momentum) in enumerate(zip(data["lr"], data["momentum"]), 1):
            for key, parameter in parameters.items():
                parameter.grad = torch.from_numpy(data[f"grad/{key}/step{step}"].copy())
            muon.step(float(lr), float(momentum))
            buffers = muon.saved()
            for key, parameter in parameters.items():
                where = f"{key}/step{step}"
                name = f"{path.name} {variant}/{where}"
                want = data[f"{variant}/{where}"]
                yield close(name, parameter.detach().numpy(), want, atol=atol)
                name = f"{path.name} {variant} momentum_buffer/{where}"
                want = data[f"momentum_buffer/{where}"]
                yield close(name, buffers[key].numpy(), want, atol=1e-6)


def _lr_456(case: dict[str, Any]) -> Check:
    got = [
        schedule.warmdown_by_steps(
            step,
            milliseconds / 1000.0,
            iterations=case["iterations"],
            warmdown=case["warmdown_iters"],
            seconds=case["max_wallclock_seconds"],
        )
        for step, milliseconds, _ in case["table"]
    ]
    # the atol is for multipliers that end near zero as a difference of large times
    return close("lr_456", got, [row[2] for row in case["table"]], rtol=RTOL, atol=1e-12)


def _lr_1413(case: dict[str, Any]) -> Check:
    seconds = (case["effective_wallclock_ms"] or 0.0) / 1000.0
    got = []
    for step, milliseconds, _, _ in case["table"]:
        done = schedule.fraction(
            step, milliseconds / 1000.0, iterations=case["iterations"], seconds=seconds
        )
        factor = schedule.warmdown_by_fraction(
            done, warmdown=case["warmdown_frac"], floor=case["min_lr"]
        )
        got.append([done, factor])
    return close("lr_1413", got, [row[2:] for row in case["table"]], rtol=RTOL, atol=1e-12)


def _muon_momentum(case: dict[str, Any]) -> Check:
    got = [
        schedule.muon_momentum(
            step, start=case["start"], final=case["final"], warmup=case["warmup_steps"]
        )
        for step, _ in case["table"]
    ]
    return close("muon_momentum", got, [row[1] for row in case["table"]], rtol=RTOL)


def _looping(case: dict[str, Any]) -> Check:
    on, got = False, []
    for done, _ in case["frac_then_active"]:
        on = schedule.loops_on(on, done, at=case["enable_looping_at"], extra=case["num_loops"])
        got.append(on)
    return equal("looping", got, [active for _, active in case["frac_then_active"]])


def _loop_indices(case: dict[str, Any]) -> Check:
    spec = ModelSpec(
        n_layer=case["num_layers"],
        loop_start=case["loop_start"],
        loop_end=case["loop_end"],
        loop_extra=case["num_loops"],
    )
    on, off = depth.order(spec, looping=True), depth.order(spec, looping=False)
    got = [*on.encoder, -1, *on.decoder, -1, *off.encoder, -1, *off.decoder, depth.skip_rows(spec)]
    want = [*case["encoder"], -1, *case["decoder"], -1]
    want += [*case["inactive_encoder"], -1, *case["inactive_decoder"], case["num_skip_weights"]]
    return equal("loop_indices", got, want)


def _core_indices(case: dict[str, Any]) -> Check:
    layers = case["num_layers"]
    spec = ModelSpec(
        n_layer=layers, layout="cores", n_core=case["unique_layers"], xsa_last=case["xsa_last_n"]
    )
    cores = [depth.core_of(spec, layer) for layer in range(layers)]
    halves = depth.order(spec, looping=False)
    xsa = [depth.has_xsa(spec, core) for core in range(spec.cores)]
    got = [spec.cores, depth.skip_rows(spec), len(halves.encoder), len(halves.decoder)]
    got += [*cores, *xsa, *(xsa[core] for core in cores)]
    want = [case[k] for k in ("n_cores", "num_skip_weights", "n_encoder", "n_decoder")]
    want += [*case["core_of_layer"], *case["xsa_per_core"], *case["xsa_per_layer"]]
    return equal("core_indices_456", got, want)


class _Vector(nn.Module):
    def __init__(self, values: list[float]) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(values))

    def put(self, values: list[float]) -> None:
        self.w.data = torch.tensor(values)


def _ema(case: dict[str, Any]) -> Iterator[Check]:
    model = _Vector(case["weights"][0])
    average = EMA(model, decay=case["decay"], debias=False)
    for step, weights in enumerate(case["weights"][1:], 1):
        model.put(weights)
        average.update(model, step, 1.0)
        want = case["ema_after"].get(str(step))
        if want is not None:
            average.apply(model)
            yield close(f"ema after {step}", model.w.detach().numpy(), want, atol=1e-6)


def _swa(case: dict[str, Any]) -> Check:
    """Run through all steps, so that the condition picks the snapshots itself."""
    snapshots = {step: w for step, _, w in case["snapshots_step_scale_weights"]}
    model = _Vector(case["final_weights"])
    average = SWA(model, start=case["swa_start_frac"], every=case["swa_every"])
    for step in range(1, case["iterations"] + 1):
        factor = schedule.warmdown_by_steps(
            step - 1, 0.0, iterations=case["iterations"], warmdown=case["warmdown_iters"]
        )
        # a snapshot where the file has none would take in a vector of NaN
        model.put(snapshots.get(step, [float("nan")] * len(case["final_weights"])))
        average.update(model, step, factor)
    model.put(case["final_weights"])
    average.apply(model)
    want = case["average"] if case["applied"] else case["final_weights"]
    got = [average.count, *model.w.detach().tolist()]
    return close("swa", got, [len(snapshots), *want], atol=1e-6)


def _late_qat(case: dict[str, Any]) -> Check:
    on, flagged = False, None
    for step in range(case["iterations"]):
        factor = schedule.warmdown_by_steps(
            step, 0.0, iterations=case["iterations"], warmdown=case["warmdown_iters"]
        )
        on = schedule.qat_on(on, factor, below=case["threshold"])
        if on and flagged is None:
            flagged = step
    first = None if flagged is None else flagged + 1
    got = [-1 if s is None else s for s in (flagged, first)]
    want = [case["flag_set_during_step"], case["first_forward_with_fake_quant"]]
    return equal("late_qat_456", got, [-1 if s is None else s for s in want])


def _bigram_hash(case: dict[str, Any]) -> Check:
    ids = torch.tensor([case["ids"]])
    return equal("bigram_hash", bigram_rows(ids, case["buckets"])[0].tolist(), case["rows"])


def _chunk_lr(case: dict[str, Any]) -> Check:
    n = case["num_chunks"]
    got = [chunk_lr_multiplier(chunk, n) for chunk in range(n)]
    return close("ttt_chunk_lr_multiplier", got, case["multiplier"], rtol=RTOL, atol=1e-12)


SCHEDULE: dict[str, Callable[[dict[str, Any]], Check]] = {
    "lr_456": _lr_456,
    "lr_1413": _lr_1413,
    "muon_momentum": _muon_momentum,
    "looping": _looping,
    "loop_indices": _loop_indices,
    "core_indices_456": _core_indices,
    "swa": _swa,
    "late_qat_456": _late_qat,
    "bigram_hash": _bigram_hash,
    "ttt_chunk_lr_multiplier": _chunk_lr,
}


def check_schedule(path: Path) -> Iterator[Check]:
    data = json.loads(path.read_text())
    for key, cases in data.items():
        if key == "ema":
            yield from (_named(path, c) for c in _ema(cases))
        elif key in SCHEDULE:
            yield from (_named(path, SCHEDULE[key](c), i) for i, c in enumerate(cases))
        else:
            yield Check(f"{path.name} {key}", None, note="no check knows this entry")


def _named(path: Path, check: Check, case: int | None = None) -> Check:
    name = f"{path.name} {check.name}" + ("" if case is None else f"[{case}]")
    return Check(name, check.ok, check.worst, check.note)


CHECKS: dict[str, CheckFunction] = {
    "newton_schulz.npz": check_newton_schulz,
    "muon.npz": check_muon,
    "schedule.json": check_schedule,
}
