"""Training speed on a CPU: our loop's step in each mode, beside a plain twin, in one run.

    python benchmarks/train_cpu.py [--rounds 5] [--seconds 4] [--threads 2] [--no-write]

The twin is what one writes first: float32, eager, Newton-Schulz matrix by matrix, AdamW as it
comes. It trains the same model on the same tokens. Modes take turns, a few seconds each, for
several rounds. Other work on the machine can only slow a step, so a turn counts by its fastest
step; a mode is the median of its turns.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

from common import write
from underpar.model import GPT, loss, n_params
from underpar.recipe.schema import ModelSpec, TrainSpec
from underpar.train.compute import compiled_loss, eager_loss
from underpar.train.optimizers import Optimizers, grouped
from underpar.train.step import Stepper

MODEL = ModelSpec(
    vocab_size=1024,
    seq_len=256,
    n_layer=6,
    layout="cores",
    d_model=256,
    n_head=4,
    n_kv_head=2,
    d_ff=768,
    xsa_last=3,
    bigram_buckets=2048,
    bigram_dim=64,
    smear=True,
)
ROWS = 8
TOKENS = ROWS * MODEL.seq_len
TRAIN = TrainSpec(batch_tokens=TOKENS, micro_tokens=TOKENS, grad_clip=0.3, matrix_wd=0.04)


class RandomLoader:
    """Batches of random tokens: speed does not depend on which."""

    def __init__(self) -> None:
        self._generator = torch.Generator().manual_seed(0)

    def next_batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        shape = (ROWS, MODEL.seq_len + 1)
        ids = torch.randint(0, MODEL.vocab_size, shape, generator=self._generator)
        return ids[:, :-1], ids[:, 1:]

    def state(self) -> dict[str, int | str]:
        return {}

    def restore(self, state: dict[str, int | str]) -> None:
        pass


def ours(dtype: torch.dtype, compiled: bool) -> Callable[[], object]:
    """A function that makes one step of our loop."""
    model = GPT(MODEL, seed=0).train()
    model.compute_dtype = dtype
    run = compiled_loss(model) if compiled else eager_loss(model)
    stepper = Stepper(model, TRAIN, run, Optimizers(model, TRAIN, dtype=dtype))
    loader = RandomLoader()
    return lambda: stepper(loader, 0.1, 0.95)


def twin() -> Callable[[], object]:
    """A function that makes one plain step."""
    model = GPT(MODEL, seed=0).train()
    groups = grouped(model)
    adam = [
        torch.optim.AdamW(groups["token"].values(), lr=TRAIN.token_lr),
        torch.optim.AdamW(groups["scalar"].values(), lr=TRAIN.scalar_lr),
    ]
    matrices = list(groups["muon"].values())
    momenta = [torch.zeros_like(p) for p in matrices]
    loader = RandomLoader()

    def step() -> None:
        value = loss(model, *loader.next_batch())
        value.backward()
        value.item()
        nn.utils.clip_grad_norm_(model.parameters(), TRAIN.grad_clip)
        with torch.no_grad():
            for p, buffer in zip(matrices, momenta):
                buffer.mul_(0.95).add_(p.grad)
                update = plain_newton_schulz(p.grad + 0.95 * buffer)
                lr = 0.1 * TRAIN.matrix_lr
                p.mul_(1 - lr * TRAIN.matrix_wd)
                p.sub_(lr * update * max(1.0, p.shape[0] / p.shape[1]) ** 0.5)
        for optimizer in adam:
            optimizer.step()
        model.zero_grad()

    return step


def plain_newton_schulz(x: torch.Tensor) -> torch.Tensor:
    x = x / (x.norm() + 1e-7)
    if x.shape[0] > x.shape[1]:
        return plain_newton_schulz_wide(x.T).T
    return plain_newton_schulz_wide(x)


def plain_newton_schulz_wide(x: torch.Tensor) -> torch.Tensor:
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x


def rate(step: Callable[[], object], seconds: float) -> float:
    """Tokens a second of the fastest step in a turn of ``seconds``, and of two steps at least."""
    end, fastest, steps = time.perf_counter() + seconds, float("inf"), 0
    while steps < 2 or time.perf_counter() < end:
        start = time.perf_counter()
        step()
        fastest = min(fastest, time.perf_counter() - start)
        steps += 1
    return TOKENS / fastest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="per mode and round")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-write", action="store_true", help="print only")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    modes = {
        "twin": twin(),
        "float32 eager": ours(torch.float32, False),
        "bfloat16 eager": ours(torch.bfloat16, False),
        "bfloat16 compiled": ours(torch.bfloat16, True),
    }
    warmup: dict[str, float] = {}
    for name, step in modes.items():
        start = time.perf_counter()
        step()
        step()
        warmup[name] = time.perf_counter() - start
    rates: dict[str, list[float]] = {name: [] for name in modes}
    for _ in range(arguments.rounds):
        for name, step in modes.items():
            rates[name].append(rate(step, arguments.seconds))
    median = {name: statistics.median(values) for name, values in rates.items()}
    best = max((name for name in modes if name != "twin"), key=median.__getitem__)
    for name in modes:
        factor = median[name] / median["twin"]
        print(f"{name:18} {median[name]:9.0f} tok/s  {factor:5.2f} x twin")
    if not arguments.no_write:
        payload = {
            "what": "training tokens per second, forward to optimizers, fastest step of a turn",
            "parameters": n_params(GPT(MODEL, seed=None)),
            "tokens_per_step": TOKENS,
            "threads": arguments.threads,
            "median": median,
            "all": rates,
            "first_two_steps_seconds": warmup,
            "best": best,
            "best_over_twin": median[best] / median["twin"],
        }
        print(write("train_cpu", payload))


if __name__ == "__main__":
    main()
