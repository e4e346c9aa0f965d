"""Golden checks of window plans, sliding scores and score-first test-time training.

#1413 is checked through ``score_model`` itself. #456 scored the last ``stride`` positions of the
stream again in every window that runs into its end, which nothing under ``src`` can do: its window
list and its sums are rebuilt here from the predictor, the ledger (which sees each position once,
and hands out the chunks to train on) and the adapter.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tests.golden import Check, CheckFunction, close, equal
from tests.golden.model import load_model, spec_456, spec_1413
from underpar.bits import bits_per_byte
from underpar.data.tokenizer import ByteTables
from underpar.data.validation import ValidationSet
from underpar.model import GPT, twin
from underpar.recipe.schema import ScoreSpec
from underpar.score.adapt import Adapter
from underpar.score.ledger import Ledger, negative_log_likelihoods
from underpar.score.predictor import Predictor
from underpar.score.scorer import score_model
from underpar.score.windows import Window, WindowPlan, batches
from underpar.stages import How


@dataclass
class Totals:
    """What a published scorer reports: sums, and the sums after each chunk."""

    nats: float = 0.0
    tokens: int = 0
    bytes: int = 0
    per_chunk: list[dict[str, float]] = field(default_factory=list)

    def add(self, nll: np.ndarray, lengths: np.ndarray) -> None:
        self.nats += float(nll.sum(dtype=np.float64))
        self.tokens += len(nll)
        self.bytes += int(lengths.sum())

    def end_chunk(self, index: int) -> None:
        self.per_chunk.append(
            {
                "chunk": index,
                "running_bpb": self.bpb,
                "running_loss": self.loss,
                "tokens": self.tokens,
                "bytes": self.bytes,
            }
        )

    @property
    def loss(self) -> float:
        return self.nats / self.tokens

    @property
    def bpb(self) -> float:
        return bits_per_byte(self.nats, self.bytes)


def windows_456(n: int, context: int, stride: int) -> list[Window]:
    """#456's list: starts with ``stride`` tokens left; each scores its last ``stride`` again."""
    windows = []
    for start in range(0, n, stride):
        end = min(start + context, n)
        if start == 0:
            windows.append(Window(0, 0, end))
        elif end - start >= stride:
            windows.append(Window(start, end - stride, end))
    return windows


# --- windows.json -----------------------------------------------------------------------------


def check_windows(path: Path) -> Iterator[Check]:
    data = json.loads(path.read_text())
    for case in data.get("cases", []):
        yield from _check_plan(case)
    for case in data.get("large", []):
        n, stride = case["total_tokens"], case["stride"]
        name = f"windows large {case['script']} n={n} stride={stride}"
        plan = WindowPlan(n, case["seq_len"], stride)
        if case["script"] == "1413":
            yield equal(f"{name} count", len(plan), case["n_windows"])
            yield equal(f"{name} scored", [plan[-1].end, 0], [case["n_scored"], case["excess"]])
        else:
            count, scored = _large_456(n, case["seq_len"], stride)
            yield equal(f"{name} count", count, case["n_windows"])
            yield equal(f"{name} scored", [scored, scored - n], [case["n_scored"], case["excess"]])


def _check_plan(case: Mapping[str, Any]) -> Iterator[Check]:
    n, context, stride = case["total_tokens"], case["seq_len"], case["stride"]
    name = f"windows {case['script']} n={n} {context}/{stride}"
    plan = WindowPlan(n, context, stride)
    scored = Counter(p for w in plan.windows for p in range(w.first, w.end))
    yield equal(f"{name} once each", sorted(scored.items()), [(p, 1) for p in range(n)])
    if case["script"] == "456":
        windows = windows_456(n, context, stride)
    elif case["windows"]:
        windows = plan.windows
    else:
        yield Check(f"{name} list", None, note="the published plan has no window at all")
        return
    yield equal(f"{name} list", windows, case["windows"])
    times = Counter(p for w in windows for p in range(w.first, w.end))
    repeated = [[p, count] for p, count in sorted(times.items()) if count > 1]
    never = [p for p in range(n) if p not in times]
    yield equal(f"{name} scored", sum(times.values()), case["n_scored"])
    yield equal(f"{name} repeated", repeated, case["multiply_scored"])
    yield equal(f"{name} never", never, case["never_scored"])
    for size, chunks in case["chunk_of_window"].items():
        mine = [plan.chunk_of(w, int(size)) for w in windows]
        yield equal(f"{name} chunks of {size}", mine, chunks)


def _large_456(n: int, context: int, stride: int) -> tuple[int, int]:
    """Windows and scored positions of #456's list, without building it."""
    count = max((n - stride) // stride + 1, 1)
    return count, min(context, n) + (count - 1) * stride


# --- ttt_*.json -------------------------------------------------------------------------------


def _validation(npz: Mapping[str, np.ndarray], n_tokens: int) -> ValidationSet:
    tokens = npz["tokens"][:n_tokens].astype(np.uint16)
    tables = ByteTables(*(npz[key] for key in ("base_bytes", "has_leading_space", "is_boundary")))
    lengths = tables.lengths(tokens).astype(np.int32)
    return ValidationSet(tokens, lengths, np.zeros(1, dtype=np.int64), int(lengths.sum()))


def _score_spec(case: Mapping[str, Any], config: Mapping[str, Any], optimizer: str) -> ScoreSpec:
    """The settings of a case; a setting that is neither an input nor an argument is an error."""
    inputs = case["inputs"]
    args = {**inputs["args"], **{k: v for k, v in inputs.items() if k.endswith("stride")}}
    context = args.pop("eval_seq_len", None) or args.get(
        "train_seq_len", config.get("train_seq_len")
    )
    stride = args.pop("eval_stride", None) or args.pop("stride")
    args.pop("train_seq_len", None)
    if (args.pop("rank", 0), args.pop("world_size", 1)) != (0, 1):
        raise ValueError("a case of several processes")
    names = {
        "ttt_lr": "ttt_lr",
        "ttt_epochs": "ttt_epochs",
        "ttt_momentum": "ttt_momentum",
        "ttt_chunk_tokens": "ttt_chunk",
        "ttt_freeze_blocks": "ttt_freeze",
        "ttt_grad_clip": "ttt_clip",
        "ttt_batch_seqs": "ttt_batch",
    }
    settings = {names[key]: value for key, value in args.items() if key in names}
    unknown = sorted(set(args) - set(names))
    if unknown:
        raise ValueError(f"evaluation settings without a counterpart: {', '.join(unknown)}")
    return ScoreSpec(context=context, stride=stride, ttt_optimizer=optimizer, **settings)


def run_1413(model: GPT, spec: ScoreSpec, validation: ValidationSet, stage: How) -> Totals:
    """The package's own scorer; figures per chunk follow from the losses of the positions."""
    result = score_model(model, spec, validation, stage)
    totals = Totals()
    plan = WindowPlan(validation.n_targets, spec.context, spec.stride)
    for chunk in plan.chunks(spec.ttt_chunk):
        part = slice(chunk.windows[0].first, chunk.windows[-1].end)
        totals.add(result.nll[part], validation.byte_lengths[part])
        totals.end_chunk(chunk.index)
    assert abs(totals.nats - result.score.nats) < 1e-6 * totals.nats
    return totals


def run_456(model: GPT, spec: ScoreSpec, validation: ValidationSet, stage: How) -> Totals:
    """#456's scorer, its repeated tail included."""
    tokens, n = validation.tokens, validation.n_targets
    predictor = Predictor(model, spec.context)
    ledger = Ledger(tokens, validation.byte_lengths, predictor.vocab_size)
    adapter = Adapter(model, spec)
    plan = WindowPlan(n, spec.context, spec.stride)
    n_chunks = plan.n_chunks(spec.ttt_chunk)
    windows = windows_456(n, spec.context, spec.stride)
    totals, reached = Totals(), 0
    for index in range(n_chunks):
        own = [w for w in windows if plan.chunk_of(w, spec.ttt_chunk) == index]
        for batch in batches(own, spec.window_batch, predictor.max_positions):
            inputs = [tokens[w.start : w.end] for w in batch]
            logits = predictor.predict(inputs, batch[0].first - batch[0].start)
            for w, rows in zip(batch, logits):
                nll = negative_log_likelihoods(rows, tokens[w.first + 1 : w.end + 1])
                totals.add(nll, validation.byte_lengths[w.first : w.end])
                if w.end > reached:  # the ledger takes only what is new
                    new = max(w.first, reached)
                    ledger.commit([(new, w.end)], rows[new - w.first :])
                    reached = w.end
        if own:
            totals.end_chunk(index)
        if own and stage == "ttt":
            start = index * spec.ttt_chunk
            chunk = ledger.close_chunk(start, min(start + spec.ttt_chunk, n))
            adapter.update([chunk], index, n_chunks)
    return totals


def _check_ttt(
    path: Path, to_spec: Callable[..., Any], run: Callable[..., Totals], optimizer: str
) -> Iterator[Check]:
    data = json.loads(path.read_text())
    with np.load(path.with_suffix(".npz"), allow_pickle=False) as file:
        npz = dict(file)
    model = load_model(npz, to_spec(data["config"]))
    for key, case in data["cases"].items():
        name = f"{path.stem} {key}"
        spec = _score_spec(case, data["config"], optimizer)
        if optimizer == "sgd" and case["total_tokens"] <= spec.context - spec.stride:
            yield Check(name, None, note="the published plan has no window at all")
            continue
        validation = _validation(npz, case["inputs"]["n_tokens"])
        yield equal(f"{name} targets", validation.n_targets, case["total_tokens"])
        mine = twin(model)
        mine.looping = bool(case["inputs"].get("looping_active", False))
        totals = run(mine, spec, validation, "sliding")
        yield from _compare(f"{name} sliding", totals, case["sliding"], 1e-5)
        if optimizer == "sgd" and spec.ttt_clip == 0:
            yield Check(f"{name} ttt", None, note="#1413 clips to 0: no gradient is left")
            continue
        totals = run(mine, spec, validation, "ttt")
        for kind in ("ttt", "ttt_float64"):
            if kind in case:
                yield from _compare(f"{name} {kind}", totals, case[kind], 1e-4)
        yield from _compare_chunks(name, totals, case["per_chunk"])
        yield from _compare_change(name, model, mine, case["param_change_norm"])


def _compare(name: str, mine: Totals, want: Mapping[str, float], atol: float) -> Iterator[Check]:
    yield close(f"{name} loss", mine.loss, want["val_loss"], atol=atol)
    yield close(f"{name} bpb", mine.bpb, want["val_bpb"], atol=atol)


def _compare_chunks(name: str, mine: Totals, want: list[dict[str, float]]) -> Iterator[Check]:
    for key in ("chunk", "tokens", "bytes"):
        yield equal(f"{name} {key}", [c[key] for c in mine.per_chunk], [c[key] for c in want])
    for key in ("running_bpb", "running_loss"):
        got = [c[key] for c in mine.per_chunk]
        yield close(f"{name} {key}", got, [c[key] for c in want], atol=1e-4)


def _compare_change(
    name: str, before: GPT, after: GPT, want: Mapping[str, float]
) -> Iterator[Check]:
    start = dict(before.named_parameters())
    got = {p: float((t - start[p]).detach().norm()) for p, t in after.named_parameters()}
    yield equal(f"{name} parameters", sorted(got), sorted(want))
    yield close(
        f"{name} param_change_norm",
        [got[p] for p in want],
        list(want.values()),
        rtol=1e-2,
        atol=1e-5,  # 1 % of 1e-3, below which the change is noise
    )


def check_456(path: Path) -> Iterator[Check]:
    return _check_ttt(path, spec_456, run_456, "adamw")


def check_1413(path: Path) -> Iterator[Check]:
    return _check_ttt(path, spec_1413, run_1413, "sgd")


CHECKS: dict[str, CheckFunction] = {
    "windows.json": check_windows,
    "ttt_456*.json": check_456,
    "ttt_1413*.json": check_1413,
}
