"""Paths outside the scratch folder: what the script writes there lands in a folder inside it.

Scripts were written for machines with a /data, a /workspace or a home of their own, none of which
exists here, and nothing outside the scratch folder can be written. A path outside therefore has a
twin below SCRATCH/outside (/tmp: SCRATCH/tmp, as the jail has it): writing goes to the twin, and
reading goes there when it exists, so that files are found again under the name they were given.
Devices and the kernel's files stay what they are.
"""

from __future__ import annotations

import builtins
import ctypes
import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from . import hits
from .swap import swap

_KERNEL = ("/dev", "/proc", "/sys")
_TEMPORARY = ("/tmp", "/var/tmp")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_makedirs, _lexists = os.makedirs, os.path.lexists


def _below(path: str, folders: tuple[str, ...]) -> str | None:
    return next((f for f in folders if path == f or path.startswith(f + "/")), None)


class Places:
    """Twins of the paths outside `scratch`."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = str(scratch)

    def twin(self, path: Any) -> str | None:
        """Where a path outside lies inside; None for a path that stays."""
        text = os.fspath(path) if isinstance(path, str | os.PathLike) else None
        if not isinstance(text, str) or not (text.startswith("/") or ".." in text):
            return None
        text = os.path.abspath(text)
        if _below(text, (self.scratch, *_KERNEL)):
            return None
        temporary = _below(text, _TEMPORARY)
        if temporary:
            return f"{self.scratch}/tmp{text.removeprefix(temporary)}"
        return f"{self.scratch}/outside{text}"

    def reading(self, path: Any) -> Any:
        """`path`, or its twin where something was written."""
        twin = self.twin(path)
        return path if twin is None or not _lexists(twin) else _like(path, twin)

    def writing(self, path: Any) -> Any:
        """`path`, or its twin, whose folder exists."""
        twin = self.twin(path)
        if twin is None:
            return path
        _makedirs(os.path.dirname(twin), exist_ok=True)
        hits.hit("paths")
        return _like(path, twin)

    def standing(self, path: Any) -> Any:
        """Where to stand for a working directory of `path`."""
        found = self.reading(path)
        return self.scratch if self.twin(found) is not None or not _lexists(found) else found

    def words(self, command: Any) -> Any:
        """A command line, its paths that nobody has here led to their twins."""
        if not isinstance(command, list | tuple):
            return command
        return [w if self.twin(w) is None or _lexists(w) else self.writing(w) for w in command]


def _like(path: Any, text: str) -> Any:
    return text if isinstance(path, str) else Path(text)


def first(lead: Callable[[Any], Any], function: Any) -> Any:
    """`function` with its first argument led elsewhere."""

    def call(path: Any = ".", *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("dir_fd") is not None:
            return function(path, *args, **kwargs)
        return function(lead(path), *args, **kwargs)

    return call


def _both(places: Places, function: Any) -> Any:
    def call(source: Any, target: Any, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("src_dir_fd") is None and kwargs.get("dst_dir_fd") is None:
            source, target = places.reading(source), places.writing(target)
        return function(source, target, *args, **kwargs)

    return call


def _system(places: Places) -> None:
    reading, writing, plain = places.reading, places.writing, os.open

    def open_(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
        if kwargs.get("dir_fd") is None:
            path = writing(path) if flags & _WRITING else reading(path)
        return plain(path, flags, *args, **kwargs)

    swap(os, open=open_, chdir=first(places.standing, os.chdir))
    for name in ("mkdir", "makedirs", "mkfifo", "chmod"):
        setattr(os, name, first(writing, getattr(os, name)))
    for name in (
        "stat", "lstat", "listdir", "scandir", "access", "readlink", "utime", "truncate",
        "remove", "unlink", "rmdir", "removedirs",
    ):  # fmt: skip
        setattr(os, name, first(reading, getattr(os, name)))
    for name in ("rename", "replace", "link"):
        setattr(os, name, _both(places, getattr(os, name)))
    swap(shutil, rmtree=first(reading, shutil.rmtree))


def _libraries(places: Places) -> None:
    save = torch.save

    def save_(obj: Any, f: Any, *args: Any, **kwargs: Any) -> Any:
        return save(obj, places.writing(f), *args, **kwargs)

    class Library(ctypes.CDLL):
        def __init__(self, name: Any, *args: Any, **kwargs: Any) -> None:
            super().__init__(places.reading(name), *args, **kwargs)

    swap(torch, save=save_, load=first(places.reading, torch.load))
    swap(ctypes, CDLL=Library, cdll=ctypes.LibraryLoader(Library))


def install(places: Places, lead: Callable[[Any], Any]) -> None:
    """Lead paths outside into the scratch folder; `lead` finds what is opened for reading."""
    _system(places)
    _libraries(places)
    plain = builtins.open

    def open_(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        reading = isinstance(mode, str) and not set(mode) & set("wax+")
        return plain(lead(file) if reading else places.writing(file), mode, *args, **kwargs)

    swap(builtins, open=open_)
    swap(io, open=open_)  # pathlib's
