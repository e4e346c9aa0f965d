"""The competition's published token shards, fetched from the Hugging Face hub.

The repository keeps everything under one folder: ``datasets/manifest.json`` names data sets (with
their tokenizer and numbers of shards) and tokenizers (with their files); shards lie in
``datasets/datasets/<name>/fineweb_{train,val}_%06d.bin``, tokenizers in ``datasets/tokenizers/``.
Here the outer folder is dropped, so ``out_dir`` looks as the competition's ``data`` folder does:

    out_dir/datasets/fineweb10B_sp8192/fineweb_val_000000.bin ...
    out_dir/tokenizers/fineweb_8192_bpe.model

What a finished download promises: every file is whole, is of one commit of the repository, has the
SHA-256 that the hub states (it does so for every large file), and every shard's header agrees with
its size. A file gets its name after these checks; until then it lives in ``out_dir/.download``. So
a run that was killed leaves nothing half under a final name, and the next run checks what is there,
keeps it, and fetches the rest. A connection that breaks within a file is taken up where it broke; a
killed process starts its one unfinished file (200 MB) again.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any

from underpar import progress
from underpar.data.shards import read_shard
from underpar.errors import DataError, DependencyError, MachineError, UnderparError

REPO = "willdepueoai/parameter-golf"
ROOT = "datasets"
PREFIX = "fineweb10B_"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_CHUNK = 1 << 20


def download(
    variant: str,
    train_shards: int,
    out_dir: Path,
    *,
    repo: str | None = None,
    endpoint: str | None = None,
) -> Path:
    """Fetch a published data set: all validation shards, the first ``train_shards``, the tokenizer.

    variant: 'sp8192' or the full name 'fineweb10B_sp8192'. repo: another hub repository of the same
    layout. endpoint: another hub server. Returns the folder of shards. Files already there are
    hashed and kept if right. Raises DataError (unknown variant, more shards than exist, missing or
    damaged files, no network), DependencyError, MachineError (disk).
    """
    if train_shards < 0:
        raise DataError("number of training shards", got=train_shards, wanted="0 or more")
    out_dir = Path(out_dir)
    mirror = _Mirror(repo or REPO, endpoint, out_dir)
    name, files = plan(mirror.manifest(), variant, train_shards)
    fetched = sum([mirror.fetch(file, i, len(files)) for i, file in enumerate(files)])
    shutil.rmtree(mirror.staging, ignore_errors=True)
    progress.current().line(
        f"{name}: {fetched} files fetched, {len(files) - fetched} were here already; all verified"
    )
    return out_dir / "datasets" / name


def plan(manifest: Mapping[str, Any], variant: str, train_shards: int) -> tuple[str, list[str]]:
    """(data set name, paths to fetch in order) for a manifest. Paths are relative to its folder."""
    try:
        datasets = {str(entry["name"]): entry for entry in manifest["datasets"]}
        tokenizers = {str(entry["name"]): entry for entry in manifest.get("tokenizers", [])}
        name = variant if variant in datasets else PREFIX + variant
        if name not in datasets:
            raise _unknown_variant(variant, sorted(n.removeprefix(PREFIX) for n in datasets))
        entry = datasets[name]
        n_train, n_val = (int(entry["stats"][key]) for key in ("files_train", "files_val"))
        tokenizer = tokenizers[str(entry["tokenizer_name"])]
        paths = [tokenizer[key] for key in ("model_path", "vocab_path", "path") if key in tokenizer]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            "the hub's manifest.json is not of the form we know",
            got=f"{type(error).__name__}: {error}",
            wanted="datasets[name, tokenizer_name, stats{files_train, files_val}], tokenizers[]",
        ) from error
    if train_shards > n_train:
        raise DataError(
            f"training shards of '{variant}'",
            got=train_shards,
            wanted=f"at most {n_train}: that is how many there are",
        )
    files = [_inside(str(path)) for path in paths if path]
    files += [f"datasets/{name}/fineweb_val_{i:06d}.bin" for i in range(n_val)]
    files += [f"datasets/{name}/fineweb_train_{i:06d}.bin" for i in range(train_shards)]
    return name, [_inside(file) for file in files]


def _unknown_variant(variant: str, known: list[str]) -> DataError:
    near = difflib.get_close_matches(variant.removeprefix(PREFIX), known, n=1, cutoff=0.4)
    return DataError(
        "variant of the published data",
        got=f"'{variant}'",
        wanted=f"one of {', '.join(known) or '(none: the manifest is empty)'}",
        do=f"Did you mean '{near[0]}'?" if near else "",
    )


def _inside(path: str) -> str:
    """A relative path that stays in its folder: the manifest comes from elsewhere."""
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or "\\" in path:
        raise DataError("path in the hub's manifest", got=f"'{path}'", wanted="a path inside it")
    return path


class _Mirror:
    """One repository on one server, copied file by file below ``out_dir``."""

    def __init__(self, repo: str, endpoint: str | None, out_dir: Path) -> None:
        self.hub = _huggingface_hub()
        self.repo, self.endpoint, self.out_dir = repo, endpoint, out_dir
        self.staging = out_dir / ".download"
        self.revision = "main"

    def manifest(self) -> dict[str, Any]:
        """The parsed manifest. Pins the commit, so that all later files belong to it."""
        _, self.revision = self._metadata("manifest.json")
        staged = self._get("manifest.json", position=0.0, share=0.0)
        try:
            manifest = json.loads(staged.read_bytes())
        except ValueError as error:
            raise DataError(
                "the hub's manifest.json", got=f"damaged JSON ({error})", do="Try again later."
            ) from error
        if not isinstance(manifest, dict):
            raise DataError("the hub's manifest.json", got=type(manifest).__name__, wanted="object")
        return manifest

    def fetch(self, relative: str, index: int, count: int) -> bool:
        """Make ``out_dir/relative`` the hub's file. False when it already was."""
        final = self.out_dir / relative
        etag, _ = self._metadata(relative)
        if final.exists():
            progress.current().update("download", index, count, f"checking {final.name}")
            fault = _fault(final, etag)
            if fault is None:
                return False
            progress.current().line(f"{final} is damaged ({fault}): fetching it again")
        staged = self._get(relative, position=index / count, share=1 / count)
        fault = _fault(staged, etag)
        if fault is not None:
            staged.unlink()
            raise DataError(
                f"downloaded file '{relative}'",
                got=fault,
                do="It was thrown away. Run the command again; complete files are kept.",
            )
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            os.replace(staged, final)
        except OSError as error:
            raise MachineError(f"cannot write {final}", got=error.strerror) from error
        return True

    def _metadata(self, relative: str) -> tuple[str, str]:
        """(ETag, commit) of a file, without its content."""
        file = f"{ROOT}/{relative}"
        try:
            url = self.hub.hf_hub_url(
                self.repo,
                file,
                repo_type="dataset",
                revision=self.revision,
                endpoint=self.endpoint,
            )
            found = self.hub.get_hf_file_metadata(url, token=False, endpoint=self.endpoint)
        except Exception as error:  # httpx and httpx2 by version of the hub: no common base to name
            raise self._explained(error, file) from error
        return found.etag or "", found.commit_hash or self.revision

    def _get(self, relative: str, *, position: float, share: float) -> Path:
        """Download into the staging folder; where it lies there."""
        file = f"{ROOT}/{relative}"
        try:
            path = self.hub.hf_hub_download(
                self.repo,
                file,
                repo_type="dataset",
                revision=self.revision,
                local_dir=self.staging,
                endpoint=self.endpoint,
                token=False,
                tqdm_class=_bar(self.hub, Path(relative).name, position, share),
            )
        except Exception as error:  # as above
            raise self._explained(error, file) from error
        return Path(path)

    def _explained(self, error: Exception, file: str) -> UnderparError:
        """The hub's exception as one of ours."""
        errors = self.hub.errors
        where = f"{self.repo} at {self.endpoint or 'the hub'}"
        if isinstance(error, errors.RemoteEntryNotFoundError):
            return DataError(f"file on the hub: {where} has no '{file}'")
        if isinstance(error, errors.RepositoryNotFoundError):
            return DataError(
                f"data set repository {where}",
                got="not found, or not public",
                do="Check --repo; the competition's own is the default.",
            )
        if isinstance(error, OSError) and error.errno and not isinstance(error, ConnectionError):
            return MachineError(f"cannot write below {self.staging}", got=error.strerror)
        cause = error.__cause__ or error
        reason = (str(cause).splitlines() or ["no reason given"])[0]
        return DataError(
            f"cannot reach {where}",
            got=f"{type(cause).__name__}: {reason}",
            do="Check the network and run the command again; complete files are kept.",
        )


def _huggingface_hub() -> ModuleType:
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError as error:
        raise DependencyError(
            "downloading needs the package huggingface_hub",
            got=str(error),
            do="Run: pip install 'underpar[data]'",
        ) from error
    return huggingface_hub


def _fault(path: Path, etag: str) -> str | None:
    """What is wrong with a file, or None: SHA-256 where the ETag is one, header where a shard."""
    if _SHA256.fullmatch(etag):
        digest = hashlib.sha256()
        with path.open("rb") as handle:
            while block := handle.read(_CHUNK):
                digest.update(block)
        if digest.hexdigest() != etag:
            return f"SHA-256 {digest.hexdigest()[:12]}..., the hub says {etag[:12]}..."
    if path.suffix == ".bin":
        try:
            read_shard(path)
        except DataError as error:
            return str(error)
    return None


def _bar(hub: ModuleType, name: str, position: float, share: float) -> type:
    """A progress bar class for the hub that draws nothing and tells our own sink instead."""

    class Bar(hub.utils.tqdm):  # type: ignore[name-defined]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **{**kwargs, "disable": True})
            self.got = kwargs.get("initial") or 0

        def update(self, n: float | None = 1) -> None:
            self.got += n or 0
            part = min(self.got / self.total, 1.0) if self.total else 0.0
            note = f"{name} {self.got / 1e6:.0f} MB"
            progress.current().update("download", position + share * part, 1.0, note)

    return Bar
