"""`torch.cuda` for a machine that has none: a GPU that is always done and uses no memory."""

from __future__ import annotations

import time
import types
from typing import Any

import torch

from . import hits
from .swap import swap

_PROPERTIES = types.SimpleNamespace(
    name="NVIDIA H100 80GB HBM3",
    major=9,
    minor=0,
    total_memory=85_000_000_000,
    multi_processor_count=4,
    warp_size=32,
    shared_memory_per_block=49152,
    shared_memory_per_block_optin=232448,
    shared_memory_per_multiprocessor=233472,
    regs_per_multiprocessor=65536,
    max_threads_per_multi_processor=2048,
    L2_cache_size=52428800,
)

#: Functions that have nothing to do.
_IDLE = """
synchronize set_device empty_cache manual_seed manual_seed_all init ipc_collect
reset_peak_memory_stats reset_max_memory_allocated set_per_process_memory_fraction set_stream
seed seed_all
"""

#: Functions whose answer is 0.
_ZERO = """
current_device max_memory_allocated max_memory_reserved memory_allocated memory_reserved
utilization temperature power_draw
"""


class CudaEvent:
    """A CUDA event that is recorded when asked and measured by the script's own clock."""

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        self.at = 0.0

    def record(self, *_args: Any) -> None:
        self.at = time.perf_counter()

    def elapsed_time(self, other: CudaEvent) -> float:
        """Milliseconds until `other`."""
        return (other.at - self.at) * 1000.0

    def query(self) -> bool:
        return True

    def synchronize(self) -> None: ...

    def wait(self, *_args: Any) -> None: ...


class CudaStream:
    """A stream in which everything has already happened; also its own context manager."""

    cuda_stream = 0

    def __init__(self, *_args: Any, **_kwargs: Any) -> None: ...

    def __enter__(self) -> CudaStream:
        return self

    def __exit__(self, *_exc: Any) -> None: ...

    def synchronize(self) -> None: ...

    def wait_stream(self, *_args: Any) -> None: ...

    def wait_event(self, *_args: Any) -> None: ...

    def query(self) -> bool:
        return True

    def record_event(self, event: CudaEvent | None = None) -> CudaEvent:
        event = event or CudaEvent()
        event.record()
        return event


class Scaler:
    """GradScaler that scales by one."""

    def __init__(self, *_args: Any, **_kwargs: Any) -> None: ...

    def scale(self, loss: Any) -> Any:
        return loss

    def unscale_(self, _optimizer: Any) -> None: ...

    def step(self, optimizer: Any, *args: Any) -> Any:
        return optimizer.step(*args)

    def update(self, *_args: Any) -> None: ...

    def is_enabled(self) -> bool:
        return False


def _answers() -> dict[str, Any]:
    def nothing(*_args: Any, **_kwargs: Any) -> None:
        hits.hit("torch.cuda")

    def zero(*_args: Any, **_kwargs: Any) -> int:
        return 0

    def stream(*_args: Any, **_kwargs: Any) -> CudaStream:
        return CudaStream()

    answers: dict[str, Any] = dict.fromkeys(_IDLE.split(), nothing)
    answers |= dict.fromkeys(_ZERO.split(), zero)
    return answers | {
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "is_bf16_supported": lambda *_a, **_k: True,
        "device_count": lambda: 1,
        "get_device_name": lambda *_a: _PROPERTIES.name,
        "get_device_capability": lambda *_a: (9, 0),
        "get_device_properties": lambda *_a: _PROPERTIES,
        "mem_get_info": lambda *_a: (_PROPERTIES.total_memory, _PROPERTIES.total_memory),
        "memory_summary": lambda *_a, **_k: "",
        "memory_stats": lambda *_a, **_k: {},
        "get_rng_state": lambda *_a: torch.get_rng_state(),
        "get_rng_state_all": lambda: [torch.get_rng_state()],
        "set_rng_state": nothing,
        "set_rng_state_all": nothing,
        "current_stream": stream,
        "default_stream": stream,
        "stream": stream,
        "device": stream,
        "Stream": CudaStream,
        "Event": CudaEvent,
        "GradScaler": Scaler,
    }


def install() -> None:
    """Replace the functions of `torch.cuda` that scripts call."""
    for name, answer in _answers().items():
        setattr(torch.cuda, name, answer)
    swap(torch.cuda.amp, GradScaler=Scaler)
    swap(torch.amp, GradScaler=Scaler)
    swap(torch.version, cuda="12.8")
