"""What general compressors reach on the same text, alone and with the same training text.

*Alone* compresses the held-out text by itself. *With prior* is what the held-out text adds to the
training text: size(prior + held_out) - size(prior). That is the fair match for a model that was
trained on the prior, because it gives the compressor the same knowledge and counts its bytes for
neither of the two. Every compressor runs at its strongest practical setting, and on one thread
where threads would split the text (zpaq loses 0.12 bits per byte by that).

The two slowest, zpaq and brotli, take a minute of processor time each on 12 MB, so sizes can be
kept in a small JSON file: a size depends on nothing but settings, package version and text.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import lzma
import platform
import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from underpar import progress, storage
from underpar.bits import compressed_bpb
from underpar.errors import DataError

Compress = Callable[[bytes], bytes]


def _xz(data: bytes) -> bytes:
    return lzma.compress(data, preset=9 | lzma.PRESET_EXTREME)


def _zstd(data: bytes) -> bytes:
    import zstandard

    # as `zstd --ultra -22 --long=27`: a window of 128 MiB, so that all of the prior stays in sight
    parameters = zstandard.ZstdCompressionParameters.from_level(22, window_log=27, enable_ldm=True)
    return zstandard.ZstdCompressor(compression_params=parameters).compress(data)


def _brotli(data: bytes) -> bytes:
    import brotli

    # 24 is as large a window as the package offers; 16 MiB hold the demo's 12 MB
    return bytes(brotli.compress(data, quality=11, lgwin=24))


def _ppmd(data: bytes) -> bytes:
    import pyppmd

    return bytes(pyppmd.compress(data, max_order=16, mem_size=1 << 28, variant="I"))


def _zpaq(data: bytes) -> bytes:
    import zpaq

    return bytes(zpaq.compress(data, level=5, threads=1))


@dataclass(frozen=True)
class Compressor:
    """A function bytes -> bytes, its settings, and the package it needs ('' for none).

    pace: seconds a megabyte, roughly; only the progress bar uses it.
    """

    name: str
    settings: str
    package: str
    compress: Compress
    pace: float


COMPRESSORS = {
    c.name: c
    for c in (
        Compressor("gzip", "-9", "", lambda data: gzip.compress(data, 9, mtime=0), 0.15),
        Compressor("xz", "-9e", "", _xz, 1.2),
        Compressor("zstd", "-22 --long=27", "zstandard", _zstd, 1.0),
        Compressor("brotli", "-q 11 -w 24", "brotli", _brotli, 3.5),
        Compressor("ppmd", "I, order 16, 256 MiB", "pyppmd", _ppmd, 0.9),
        Compressor("zpaq", "level 5, one thread", "zpaq", _zpaq, 7.5),
    )
}


@dataclass(frozen=True)
class Row:
    """One compressor's result. Sizes in bytes, None where not measured; ``missing``: the reason.

    seconds: wall time of its measurements, also when they come from the cache. text_bytes: length
    of the held-out text.
    """

    name: str
    alone_bytes: int | None
    with_prior_bytes: int | None
    seconds: float
    missing: str | None = None
    text_bytes: int = 0

    @property
    def alone_bpb(self) -> float | None:
        return (
            None if self.alone_bytes is None else compressed_bpb(self.alone_bytes, self.text_bytes)
        )

    @property
    def with_prior_bpb(self) -> float | None:
        size = self.with_prior_bytes
        return None if size is None else compressed_bpb(size, self.text_bytes)

    @property
    def label(self) -> str:
        """'xz -9e': the name with its settings."""
        return f"{self.name} {COMPRESSORS[self.name].settings}"


def measure(
    held_out: bytes,
    prior: bytes,
    *,
    names: Iterable[str] | None = None,
    cache: Path | None = None,
) -> list[Row]:
    """Run compressors on a text: one row each, in the order asked for (default: all).

    held_out: the text; prior: the training text, b"" to measure alone only. cache: a JSON file of
    sizes measured before, to which new ones are added. A package that is not installed gives a row
    that names it. Unknown name: DataError.
    """
    chosen = list(COMPRESSORS if names is None else names)
    for name in chosen:
        if name not in COMPRESSORS:
            raise DataError(
                "compressor", got=f"'{name}'", wanted=f"one of {', '.join(COMPRESSORS)}"
            )
    absent = {name: reason for name in chosen if (reason := _missing(COMPRESSORS[name]))}
    texts = {"alone": held_out}
    if prior:
        texts |= {"both": prior + held_out, "prior": prior}
    jobs = [(name, text) for name in chosen if name not in absent for text in texts]
    known = _sizes(jobs, texts, _read_cache(cache), cache)
    rows = []
    for name in chosen:
        if name in absent:
            rows.append(Row(name, None, None, 0.0, absent[name], len(held_out)))
            continue
        sizes = {text: known[name, text][0] for text in texts}
        seconds = sum(known[name, text][1] for text in texts)
        extra = sizes["both"] - sizes["prior"] if prior else None
        rows.append(Row(name, sizes["alone"], extra, seconds, None, len(held_out)))
    return rows


def _missing(compressor: Compressor) -> str | None:
    """Why a compressor cannot run here, or None."""
    try:
        compressor.compress(b"")
    except ImportError:
        return f"package {compressor.package} is not installed: pip install 'underpar[bench]'"
    return None


Measured = tuple[int, float]  # bytes, seconds


def _sizes(
    jobs: list[tuple[str, str]],
    texts: dict[str, bytes],
    cached: dict[str, Measured],
    cache: Path | None,
) -> dict[tuple[str, str], Measured]:
    """(name, text) -> measured, from the cache or by running. The libraries release the GIL."""
    digests = {text: hashlib.sha256(data).hexdigest() for text, data in texts.items()}
    keys = {(name, text): _key(COMPRESSORS[name], digests[text]) for name, text in jobs}
    # the slowest first: zpaq stands last in the table, and starting it last would leave a core idle
    todo = [job for job in reversed(jobs) if keys[job] not in cached]
    pool = ThreadPoolExecutor(2)
    try:
        running = {
            pool.submit(_timed, COMPRESSORS[name].compress, texts[text]): (name, text)
            for name, text in todo
        }
        waiting, pace = set(running), _Pace(running, texts)
        while waiting:
            finished, waiting = wait(waiting, timeout=1.0, return_when=FIRST_COMPLETED)
            for future in finished:
                cached[keys[running[future]]] = future.result()
            if finished and cache is not None:  # at once: an interruption then loses no measurement
                _write_cache(cache, cached)
            pace.report()
    finally:
        pool.shutdown(cancel_futures=True)  # after Ctrl-C start nothing more
    return {job: cached[key] for job, key in keys.items()}


class _Pace:
    """Progress of the measurements, weighted by their expected time: zpaq takes half of it."""

    def __init__(
        self, running: dict[Future[Measured], tuple[str, str]], texts: dict[str, bytes]
    ) -> None:
        self._running, self._clock = running, progress.Clock()
        self._began: dict[Future[Measured], float] = {}
        self._work = {
            future: COMPRESSORS[name].pace * len(texts[text]) / 1e6
            for future, (name, text) in running.items()
        }

    def report(self) -> None:
        done, names = 0.0, []
        for future, (name, _) in self._running.items():
            if future.done():
                done += self._work[future]
            elif future.running():
                names.append(name)
                since = self._clock.seconds - self._began.setdefault(future, self._clock.seconds)
                done += min(since, 0.95 * self._work[future])
        total = sum(self._work.values())
        left = self._clock.left(done, total)
        progress.current().update("compressors", done, total, ", ".join(names), left)


def _timed(compress: Compress, data: bytes) -> Measured:
    start = time.perf_counter()
    return len(compress(data)), time.perf_counter() - start


def _key(compressor: Compressor, digest: str) -> str:
    package = compressor.package
    version = metadata.version(package) if package else f"of Python {platform.python_version()}"
    return f"{compressor.name} {version} | {compressor.settings} | {digest}"


def _read_cache(path: Path | None) -> dict[str, Measured]:
    """Sizes measured before; a damaged or foreign file counts as empty: all can be redone."""
    try:
        data = json.loads(path.read_bytes()) if path is not None else {}
        return {str(key): (int(size), float(seconds)) for key, (size, seconds) in data.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _write_cache(path: Path, sizes: dict[str, Measured]) -> None:
    storage.write_text(path, json.dumps(dict(sorted(sizes.items())), indent=1) + "\n")
