"""What a step runs in: number format and compiler, tried out on the machine at hand.

bfloat16 is three times faster than float32 on one CPU and five times slower on another; the
compiler needs a C++ compiler (CPU) or Triton (GPU) that may be missing or broken. So ``auto``
measures a few micro-steps instead of guessing from names. Rank 0 decides for all, and a checkpoint
records the choice: a resumed run computes as it did before. A run that must be repeatable
(``deterministic``) does not measure at all: float32 and eager on CPUs, bfloat16 and eager on GPUs.

The compiled object is the loss of one micro-batch. Looping and fake quantization are plain
attributes of the model that change under way: the compiler guards on them and compiles another
graph when they differ (a published script read such a flag inside a compiled graph as a constant,
so its late QAT never ran). Warmup meets every variant before the clock starts.
"""

from __future__ import annotations

import importlib.util
import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from underpar import dist, progress
from underpar.errors import MachineError
from underpar.model.gpt import GPT
from underpar.model.gpt import loss as model_loss
from underpar.recipe.schema import TrainSpec
from underpar.train import schedule

#: mean nats of a micro-batch, from ids and targets [B, T]
Loss = Callable[[Tensor, Tensor], Tensor]
Batch = tuple[Tensor, Tensor]

#: compiling costs the order of a minute on a CPU; shorter trainings do not win it back
WORTH_SECONDS = 120.0
_PROBE_TOKENS = 1024


@dataclass(frozen=True)
class Compute:
    """The decision, and the loss function that follows it."""

    dtype: torch.dtype
    compiled: bool
    loss: Loss


def choose(
    model: GPT,
    spec: TrainSpec,
    batch: Batch,
    micro_steps: int,
    recorded: tuple[str, bool] | None = None,
) -> Compute:
    """Decide, set ``model.compute_dtype`` and compile; the model's weights are not touched.

    batch: a real micro-batch on the model's device. micro_steps: per optimizer step and rank.
    recorded: dtype name and compiled of an earlier part of this run, to be repeated. Raises
    MachineError when compiling is asked for ("on", or recorded) and impossible.
    """
    name = recorded[0] if recorded else spec.dtype
    if name == "auto":
        name = dist.broadcast(_faster_dtype(model, spec, batch))
    model.compute_dtype = getattr(torch, name)
    eager = eager_loss(model)
    wanted = {"on": True, "off": False, "auto": None}[spec.compile]
    if recorded:
        wanted = recorded[1]
    elif wanted is None and (spec.deterministic or not _worth(model, spec, batch, micro_steps)):
        wanted = False
    compiled = None if wanted is False else _try_compiling(model, batch, must=bool(wanted))
    return Compute(model.compute_dtype, compiled is not None, compiled or eager)


def eager_loss(model: GPT) -> Loss:
    """The model's loss as a function of ids and targets."""

    def micro_loss(ids: Tensor, targets: Tensor) -> Tensor:
        return model_loss(model, ids, targets)

    return micro_loss


def compiled_loss(model: GPT, backend: str = "inductor") -> Loss:
    """The same, compiled at its first call. Graphs of an earlier run in this process are dropped:

    they count against the compiler's limit of variants, beyond which it silently runs eagerly.
    """
    torch._dynamo.reset()
    with warnings.catch_warnings():
        # torch's compiler, when first imported, uses a call that torch itself deprecates
        warnings.filterwarnings("ignore", "`torch.jit.script_method`", DeprecationWarning)
        return torch.compile(eager_loss(model), dynamic=False, backend=backend)


def micro_step_seconds(model: GPT, loss: Loss, batch: Batch, repeats: int = 2) -> float:
    """Best time of a forward and backward pass on the CPU, after one that does not count."""
    best = float("inf")
    for i in range(repeats + 1):
        start = time.perf_counter()
        loss(*batch).backward()
        if i:
            best = min(best, time.perf_counter() - start)
        model.zero_grad(set_to_none=True)
    return best


def _faster_dtype(model: GPT, spec: TrainSpec, batch: Batch) -> str:
    if batch[0].is_cuda:
        return "bfloat16"
    if spec.deterministic:
        return "float32"
    rows = max(1, _PROBE_TOKENS // batch[0].shape[1])
    part = (batch[0][:rows], batch[1][:rows])
    seconds = {}
    for name in ("float32", "bfloat16"):
        model.compute_dtype = getattr(torch, name)
        seconds[name] = micro_step_seconds(model, eager_loss(model), part)
    return min(seconds, key=seconds.__getitem__)


def _worth(model: GPT, spec: TrainSpec, batch: Batch, micro_steps: int) -> bool:
    """Whether the training is long enough, and the tools are there, for compiling to pay."""
    if batch[0].is_cuda:
        if importlib.util.find_spec("triton"):
            return True
        progress.current().line("no Triton: running without the compiler (slower)")
        return False
    step = micro_steps * micro_step_seconds(model, eager_loss(model), batch, repeats=1)
    total = min(schedule.budget_seconds(spec) or float("inf"), spec.iterations * step)
    if not dist.broadcast(total >= WORTH_SECONDS):
        return False
    if shutil.which("g++") or shutil.which("clang++"):
        return True
    progress.current().line("no C++ compiler (g++ or clang++): running eagerly (slower)")
    return False


def _try_compiling(model: GPT, batch: Batch, *, must: bool) -> Loss | None:
    """The compiled loss after one real micro-step, or None where that fails on any rank."""
    loss, reason = None, ""
    try:
        loss = compiled_loss(model)
        loss(*batch).backward()
    except Exception as error:  # whatever the toolchain raises; eager mode repeats a real bug
        first = (str(error).strip() or "no message").splitlines()[0]
        reason = f"{type(error).__name__}: {first}"
    model.zero_grad(set_to_none=True)
    reason = next((r for r in dist.gather(reason) if r), "")
    if not reason:
        return loss
    if must:
        raise MachineError(
            "cannot compile the model",
            got=reason,
            wanted="torch.compile with a C++ compiler (CPU) or Triton (GPU)",
            do="Install one, or set train.compile to 'auto' or 'off'.",
        )
    progress.current().line(f"compiling failed ({reason}): running eagerly (slower)")
    return None


@contextmanager
def numerics(spec: TrainSpec, device: torch.device) -> Iterator[None]:
    """Process-wide switches for the length of a training: determinism, TensorFloat-32 on GPUs."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    precision = torch.get_float32_matmul_precision()
    torch.use_deterministic_algorithms(spec.deterministic or deterministic)
    if device.type == "cuda" and spec.dtype != "float32":
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(deterministic)
        torch.set_float32_matmul_precision(precision)
