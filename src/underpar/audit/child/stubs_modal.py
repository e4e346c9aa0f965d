"""`modal`, as `modal run script.py` would behave with the remote function here: called in place."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

from . import hits

_ENTRYPOINTS: list[Callable[[], Any]] = []


class _Anything:
    """Images, volumes and secrets: every attribute is a method that returns the object."""

    def __init__(self, *_args: Any, **_kwargs: Any) -> None: ...

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *_args, **_kwargs: self


class _Function:
    """A remote function; near and far are the same place."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.remote = self.local = self.call = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.local(*args, **kwargs)


class App(_Anything):
    """An application: functions stay here, its entrypoint is started by `run`."""

    def function(self, *_args: Any, **_kwargs: Any) -> Callable[..., _Function]:
        return _Function

    def local_entrypoint(self, *_args: Any, **_kwargs: Any) -> Callable[..., Any]:
        def keep(function: Callable[[], Any]) -> Callable[[], Any]:
            _ENTRYPOINTS.append(function)
            return function

        return keep


def run_entrypoint() -> None:
    """Start the entrypoint of the application, if the script made one."""
    for function in _ENTRYPOINTS[:1]:
        hits.hit("modal")
        function()


def module() -> types.ModuleType:
    """The stand-in for `import modal`."""
    fake: Any = types.ModuleType("modal")
    fake.App = fake.Stub = App
    for name in ("Image", "Volume", "Secret", "Mount", "gpu", "NetworkFileSystem"):
        setattr(fake, name, _Anything())
    return fake
