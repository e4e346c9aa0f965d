"""Packages around training, where the script imports them unguarded and they are missing here.

Progress bars, loggers and monitors do nothing, compressors hand their input on, and what would
reach the network says that it cannot. None of them touches a score.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Any

from . import hits

_QUIET = frozenset((
    "wandb", "psutil", "pynvml", "nvidia_ml_py", "matplotlib", "tensorboard", "tensorboardX",
    "mlflow", "neptune", "dotenv", "rich", "loguru", "termcolor", "colorama", "seaborn",
))  # fmt: skip
_DISTANT = frozenset(("huggingface_hub", "requests", "datasets", "httpx", "boto3", "gdown"))
_FILTERS = frozenset(("zstandard", "zstd", "brotli", "brotlicffi", "lz4", "snappy", "blosc2"))


class Quiet:
    """Has every attribute, takes every call, counts as nothing."""

    def __init__(self, *_args: Any, **_kwargs: Any) -> None: ...

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Quiet()

    def __call__(self, *args: Any, **_kwargs: Any) -> Any:
        return args[0] if len(args) == 1 and callable(args[0]) else Quiet()

    def __enter__(self) -> Quiet:
        return self

    def __exit__(self, *_exc: Any) -> None: ...

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def __getitem__(self, _key: Any) -> Quiet:
        return Quiet()

    def __setitem__(self, _key: Any, _value: Any) -> None: ...

    def __bool__(self) -> bool:
        return False

    def __int__(self) -> int:
        return 0

    def __float__(self) -> float:
        return 0.0

    __index__ = __int__

    def __str__(self) -> str:
        return ""

    def __format__(self, spec: str) -> str:
        return ""

    def __truediv__(self, _other: Any) -> float:
        return 0.0

    __mul__ = __rmul__ = __add__ = __radd__ = __truediv__


class ProgressBar(Quiet):
    """A progress bar: the iterable itself, with the bar's methods."""

    def __init__(self, iterable: Any = (), *_args: Any, **_kwargs: Any) -> None:
        self._iterable = iterable

    def __iter__(self) -> Iterator[Any]:
        return iter(self._iterable)

    def __len__(self) -> int:
        return len(self._iterable)

    def __bool__(self) -> bool:
        return True


class Filter:
    """A compressor that leaves bytes as they are."""

    def __init__(self, *_args: Any, **_kwargs: Any) -> None: ...

    def compress(self, data: Any = b"", *_args: Any, **_kwargs: Any) -> bytes:
        return bytes(data)

    decompress = process = compress

    def flush(self, *_args: Any) -> bytes:
        return b""

    finish = flush


def _unreachable(*_args: Any, **_kwargs: Any) -> Any:
    hits.hit("network")
    raise OSError(101, "Network is unreachable")


class _Tools(types.ModuleType):
    """A module whose every attribute is `value`."""

    value: Any

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self.value


class _Filters(_Tools):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name.endswith(("Error", "Exception")):
            return ValueError
        return Filter if name[0].isupper() else getattr(Filter(), name, Filter)


def module(name: str) -> types.ModuleType | None:
    """The stand-in for the package or submodule `name`, if it is one of those known here."""
    top = name.partition(".")[0]
    if top == "tqdm":
        made: Any = types.ModuleType(name)
        made.tqdm, made.trange = ProgressBar, lambda *args, **_k: ProgressBar(range(*args))
    elif top in _FILTERS:
        made = _Filters(name)
    elif top in _QUIET | _DISTANT:
        made = _Tools(name)
        made.value = Quiet() if top in _QUIET else _unreachable
    else:
        return None
    made.__path__ = []
    found: types.ModuleType = made
    return found
