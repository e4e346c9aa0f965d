"""Downloads from a real HTTP server on the loopback interface that answers as the hub does."""

from __future__ import annotations

import hashlib
import io
import json
import re
import signal
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from tests import children
from underpar import progress
from underpar.data import hub
from underpar.data.opening import open_dataset
from underpar.data.shards import read_shard, write_shard
from underpar.data.tokenizer import train_bpe
from underpar.errors import DataError, DependencyError, MachineError

COMMIT = "c0ffee" + "0" * 34
NAME = "fineweb10B_sp64"
URL = re.compile(r"/datasets/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)")


class Hub:
    """What the server holds and what it was asked."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.files: dict[str, bytes] = {}
        self.tampered: dict[str, bytes] = {}  # served instead, under the true checksum
        self.cut: set[str] = set()  # the connection breaks once, half way through these
        self.stall: set[str] = set()  # these stop half way and wait for ``release``
        self.release = threading.Event()
        self.got: list[str] = []  # paths whose content was asked for
        self.ranges: list[str] = []

    def reset(self, files: dict[str, bytes]) -> None:
        self.__init__(self.url)  # type: ignore[misc]
        self.files = files


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _missing(self, code: str) -> None:
        self.send_response(404)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _answer(self, *, body: bool) -> None:
        match = URL.fullmatch(self.path)
        if match is None or match["repo"] != hub.REPO:
            return self._missing("RepoNotFound")
        path = match["path"]
        if path not in self.hub.files or match["revision"] not in ("main", COMMIT):
            return self._missing("EntryNotFound")
        data = self.hub.tampered.get(path, self.hub.files[path])
        start = self._start()
        self.send_response(206 if start else 200)
        self.send_header("ETag", f'"{hashlib.sha256(self.hub.files[path]).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(data) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        if body:
            self.hub.got.append(path)
            self._send(path, data[start:])

    def _start(self) -> int:
        if self.headers["Range"]:
            self.hub.ranges.append(self.headers["Range"])
            return int(self.headers["Range"].removeprefix("bytes=").split("-")[0])
        return 0

    def _send(self, path: str, data: bytes) -> None:
        if path in self.hub.cut | self.hub.stall:
            self.wfile.write(data[: len(data) // 2])
            self.wfile.flush()
            if path in self.hub.stall:
                self.hub.release.wait(30)
            self.hub.cut.discard(path)
            self.close_connection = True
            self.connection.close()
            return
        self.wfile.write(data)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """One server for the file. The environment is set before huggingface_hub is first imported."""
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.daemon_threads = True
    Handler.hub = Hub(f"http://127.0.0.1:{httpd.server_port}")
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HOME", str(tmp_path_factory.mktemp("hf")))
        patch.setenv("HF_ENDPOINT", Handler.hub.url)
        patch.setenv("NO_PROXY", "127.0.0.1")
        yield Handler.hub
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def shard(tmp_path: Path, seed: int, n: int = 40_000) -> bytes:
    write_shard(tmp_path / "s.bin", np.random.default_rng(seed).integers(0, 64, n).astype("u2"))
    return (tmp_path / "s.bin").read_bytes()


@pytest.fixture
def remote(server: Hub, tmp_path: Path) -> Hub:
    """The server with one small data set: 2 validation shards, 3 training shards, a tokenizer."""
    manifest = {
        "datasets": [
            {
                "name": NAME,
                "tokenizer_name": "sp_bpe_64",
                "stats": {"files_train": 3, "files_val": 2},
            },
            {
                "name": "fineweb10B_byte260",
                "tokenizer_name": "pure_byte_260",
                "stats": {"files_train": 1, "files_val": 1},
            },
        ],
        "tokenizers": [
            {"name": "sp_bpe_64", "model_path": "tokenizers/fineweb_64_bpe.model"},
            {"name": "pure_byte_260", "path": "tokenizers/fineweb_pure_byte_260.json"},
        ],
    }
    files = {
        "datasets/manifest.json": json.dumps(manifest).encode(),
        "datasets/tokenizers/fineweb_64_bpe.model": b"not a real model, but its bytes matter",
    }
    for split, count in (("val", 2), ("train", 3)):
        for i in range(count):
            path = f"datasets/datasets/{NAME}/fineweb_{split}_{i:06d}.bin"
            files[path] = shard(tmp_path, seed=len(files))
    server.reset(files)
    return server


def fetch(remote: Hub, out: Path, *, variant: str = "sp64", train_shards: int = 2) -> Path:
    return hub.download(variant, train_shards, out, endpoint=remote.url)


def test_a_download_lays_out_the_files_as_the_competition_does(remote: Hub, tmp_path: Path) -> None:
    out = tmp_path / "data"
    folder = fetch(remote, out)
    assert folder == out / "datasets" / NAME
    found = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert found == {
        "tokenizers/fineweb_64_bpe.model",
        *(f"datasets/{NAME}/fineweb_{s}_00000{i}.bin" for s in ("val", "train") for i in (0, 1)),
    }
    for path in found:
        assert (out / path).read_bytes() == remote.files[f"datasets/{path}"]
    assert read_shard(folder / "fineweb_val_000001.bin").shape == (40_000,)


def test_a_download_opens_as_a_data_set(remote: Hub, tmp_path: Path) -> None:
    texts = [f"document {i} tells of {i * i} birds, {i % 7} of them grey" for i in range(200)]
    tokenizer = train_bpe(texts, 300)
    tokens = np.concatenate([[tokenizer.bos_id, *tokenizer.encode(text)] for text in texts])
    write_shard(tmp_path / "s.bin", tokens)
    remote.files = {
        path.replace("sp64", "sp300"): (tmp_path / "s.bin").read_bytes()
        for path in remote.files
        if path.endswith(".bin")
    }
    remote.files["datasets/tokenizers/fineweb_300_bpe.model"] = tokenizer.to_bytes()
    stats = {"files_train": 3, "files_val": 2}
    remote.files["datasets/manifest.json"] = json.dumps(
        {
            "datasets": [{"name": "fineweb10B_sp300", "tokenizer_name": "t", "stats": stats}],
            "tokenizers": [{"name": "t", "model_path": "tokenizers/fineweb_300_bpe.model"}],
        }
    ).encode()
    dataset = open_dataset(fetch(remote, tmp_path / "data", variant="sp300"))
    assert len(dataset.train_files) == 2
    assert dataset.validation().true_bytes == 2 * sum(len(text) for text in texts)


def test_the_full_name_is_a_variant_too_and_no_training_shards_are_fine(
    remote: Hub, tmp_path: Path
) -> None:
    folder = fetch(remote, tmp_path, variant=NAME, train_shards=0)
    assert sorted(p.name for p in folder.iterdir()) == [
        "fineweb_val_000000.bin",
        "fineweb_val_000001.bin",
    ]


def test_a_second_run_downloads_nothing_and_more_shards_only_the_new_ones(
    remote: Hub, tmp_path: Path
) -> None:
    fetch(remote, tmp_path / "data", train_shards=1)
    remote.got.clear()
    said = io.StringIO()
    with progress.use(progress.Progress(stream=said)):
        fetch(remote, tmp_path / "data", train_shards=1)
    assert remote.got == ["datasets/manifest.json"]
    assert "0 files fetched, 4 were here already; all verified" in said.getvalue()
    remote.got.clear()
    fetch(remote, tmp_path / "data", train_shards=3)
    assert [Path(path).name for path in remote.got] == [
        "manifest.json",
        "fineweb_train_000001.bin",
        "fineweb_train_000002.bin",
    ]


def test_a_file_damaged_on_disk_is_noticed_and_fetched_again(remote: Hub, tmp_path: Path) -> None:
    folder = fetch(remote, tmp_path / "data")
    victim = folder / "fineweb_train_000000.bin"
    good = victim.read_bytes()
    victim.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))  # same size, one bit flipped
    fetch(remote, tmp_path / "data")
    assert victim.read_bytes() == good


@pytest.mark.parametrize("name", ["fineweb_train_000001.bin", "fineweb_val_000000.bin"])
def test_content_that_does_not_match_the_checksum_is_refused(
    remote: Hub, tmp_path: Path, name: str
) -> None:
    path = f"datasets/datasets/{NAME}/{name}"
    remote.tampered[path] = remote.files[path][:-2] + b"\x07\x07"
    with pytest.raises(DataError, match=rf"{name}.*SHA-256.*Run the command again"):
        fetch(remote, tmp_path / "data")
    assert not list((tmp_path / "data").rglob(name)), "a refused file must not stay anywhere"
    remote.tampered.clear()
    fetch(remote, tmp_path / "data")


def test_a_whole_file_that_is_not_a_shard_is_refused(remote: Hub, tmp_path: Path) -> None:
    remote.files[f"datasets/datasets/{NAME}/fineweb_val_000000.bin"] = b"\0" * 4096
    with pytest.raises(DataError, match="fineweb_val_000000"):
        fetch(remote, tmp_path / "data")
    assert not list((tmp_path / "data").rglob("fineweb_val_000000.bin"))


def test_a_connection_that_breaks_is_taken_up_where_it_broke(remote: Hub, tmp_path: Path) -> None:
    path = f"datasets/datasets/{NAME}/fineweb_val_000000.bin"
    remote.files[path] = shard(tmp_path, seed=1, n=12_000_000)  # the hub resumes in steps of 10 MiB
    remote.cut.add(path)
    folder = fetch(remote, tmp_path / "data", train_shards=0)
    assert (folder / "fineweb_val_000000.bin").read_bytes() == remote.files[path]
    assert remote.ranges == ["bytes=10485760-"]


def test_a_killed_download_leaves_no_half_file_and_goes_on(remote: Hub, tmp_path: Path) -> None:
    out, last = tmp_path / "data", f"datasets/datasets/{NAME}/fineweb_train_000001.bin"
    remote.stall.add(last)
    code = (
        "import sys; from pathlib import Path; from underpar.data import hub;"
        "hub.download('sp64', 2, Path(sys.argv[1]), endpoint=sys.argv[2])"
    )
    child = children.start([sys.executable, "-c", code, out, remote.url])
    children.wait_until(lambda: last in remote.got, child)
    child.send_signal(signal.SIGKILL)
    children.end(child, code=-signal.SIGKILL)
    remote.release.set()
    remote.stall.clear()
    assert not (out / "datasets" / NAME / "fineweb_train_000001.bin").exists()
    assert (out / "datasets" / NAME / "fineweb_train_000000.bin").exists()

    remote.got.clear()
    folder = fetch(remote, out)
    assert (folder / "fineweb_train_000001.bin").read_bytes() == remote.files[last]
    assert [path for path in remote.got if path.endswith(".bin")] == [last]
    assert not (out / ".download").exists()


def test_an_unknown_variant_names_the_nearest_and_lists_all(remote: Hub, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'sp46'.*byte260, sp64.*Did you mean 'sp64'"):
        fetch(remote, tmp_path, variant="sp46")


def test_more_shards_than_exist_says_how_many_there_are(remote: Hub, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"got 80, wanted at most 3"):
        fetch(remote, tmp_path, train_shards=80)
    with pytest.raises(DataError, match="0 or more"):
        fetch(remote, tmp_path, train_shards=-1)


def test_a_file_that_the_manifest_promises_but_the_hub_lacks(remote: Hub, tmp_path: Path) -> None:
    del remote.files[f"datasets/datasets/{NAME}/fineweb_val_000001.bin"]
    with pytest.raises(DataError, match=r"has no 'datasets/datasets/.*fineweb_val_000001\.bin'"):
        fetch(remote, tmp_path)


def test_an_unknown_repository(remote: Hub, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"somebody/else.*not found"):
        hub.download("sp64", 1, tmp_path, repo="somebody/else", endpoint=remote.url)


@pytest.mark.usefixtures("server")
def test_no_network(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot reach .*Check the network"):
        hub.download("sp64", 1, tmp_path, endpoint="http://127.0.0.1:9")


def test_a_folder_that_cannot_be_written(remote: Hub, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file where the folder should be")
    with pytest.raises(MachineError, match="cannot write"):
        fetch(remote, tmp_path / "data")


def test_without_the_package_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(DependencyError, match=r"pip install 'underpar\[data\]'"):
        hub.download("sp64", 1, tmp_path)


@pytest.mark.parametrize(
    "manifest",
    [
        {},
        {"datasets": 3},
        {"datasets": [{"name": NAME}]},
        {"datasets": [{"name": NAME, "tokenizer_name": "t", "stats": {"files_train": 1}}]},
        {
            "datasets": [
                {"name": NAME, "tokenizer_name": "t", "stats": {"files_train": 1, "files_val": 1}}
            ],
            "tokenizers": [],
        },
    ],
)
def test_a_manifest_of_another_form_is_refused(manifest: dict[str, object]) -> None:
    with pytest.raises(DataError, match=r"manifest\.json is not of the form"):
        hub.plan(manifest, "sp64", 1)


@pytest.mark.parametrize("path", ["../../.bashrc", "/etc/passwd", "tokenizers/../../x", "a\\b"])
def test_a_manifest_cannot_write_outside_the_folder(path: str) -> None:
    manifest = {
        "datasets": [
            {"name": NAME, "tokenizer_name": "t", "stats": {"files_train": 1, "files_val": 1}}
        ],
        "tokenizers": [{"name": "t", "model_path": path}],
    }
    with pytest.raises(DataError, match="path in the hub's manifest"):
        hub.plan(manifest, "sp64", 1)
