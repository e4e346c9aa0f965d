"""compress, decompress, info, sample as a person types them."""

from __future__ import annotations

import io
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import pytest

from tests import children
from tests.children import wait_until
from tests.coding import always_coded, prose
from tests.commands import Finished, Run, fill_disk, slow, start, underpar
from underpar.artifact.pack import file_sha256
from underpar.cli.main import main

NOISE = random.Random(5).randbytes(3000)
TEXT = prose(1000)


def piped(data: bytes, *arguments: object) -> tuple[int, bytes, str]:
    """The command in a process of its own: exit code, stdout, stderr."""
    done = children.python("-m", "underpar", *arguments, given=data, text=False, code=None)
    return done.code, done.out, done.err.decode()


def redirected(data: bytes, *arguments: object) -> tuple[int, bytes, str]:
    """The same in this process."""
    out, err = io.TextIOWrapper(io.BytesIO()), io.StringIO()
    with (
        patch.object(sys, "argv", ["underpar", *map(str, arguments)]),
        patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(data))),
        patch.object(sys, "stdout", out),
        patch.object(sys, "stderr", err),
        pytest.raises(SystemExit) as ended,
    ):
        main()
    return int(ended.value.code or 0), out.buffer.getvalue(), err.getvalue()


@pytest.fixture
def model(nano_run: Run) -> Path:
    return nano_run["model.upar"]


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_bytes(TEXT)
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def ok(*arguments: object) -> Finished:
    done = underpar(*arguments)
    assert done.code == 0, done.err
    return done


# --- files ------------------------------------------------------------------------------------


def test_there_and_back(model: Path, text: Path, tmp_path: Path) -> None:
    done = ok("compress", text, "--artifact", model, "--lanes", 16)
    file = tmp_path / "text.txt.up"
    size = file.stat().st_size
    assert size < 600
    assert f"1,000 bytes -> {size:,} bytes, {8 * size / 1000:.3f} bits a byte" in done.err
    assert text.read_bytes() == TEXT
    text.unlink()
    ok("decompress", file, "-a", model)
    assert text.read_bytes() == TEXT
    ok("decompress", file, "-a", model, "-o", tmp_path / "new" / "copy")
    assert (tmp_path / "new" / "copy").read_bytes() == TEXT
    assert names(tmp_path) == ["new", "text.txt", "text.txt.up"]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--no-adapt", "--lanes", 16), ("lanes       16", "does not adapt", "torch ")),
        (("--portable", "--lanes", 16), ("lanes       16", "does not adapt", "machine     any")),
        (("--exact",), ("lanes       exact schedule", "adapts as it decodes", "torch ")),
    ],
    ids=["fixed", "portable", "exact"],
)
def test_flags_and_info(
    model: Path, text: Path, tmp_path: Path, flags: tuple[object, ...], said: tuple[str, ...]
) -> None:
    text.write_bytes(prose(300))
    ok("compress", text, "-a", model, *flags)
    file = tmp_path / "text.txt.up"
    told = ok("info", file).out
    size = file.stat().st_size
    assert f"300 bytes in {size:,}: {8 * size / 300:.3f} bits a byte" in told
    assert "blocks      1, 0 of them stored; 300 tokens" in told
    assert file_sha256(model)[:32] in told
    assert all(part in told for part in said)
    ok("decompress", file, "-a", model, "-f")
    assert text.read_bytes() == prose(300)


def test_info_on_a_model_and_on_what_is_neither(model: Path, text: Path, tmp_path: Path) -> None:
    told = ok("info", model).out
    assert f"{model.stat().st_size:,} bytes" in told
    assert "1 layers, width 32, 4/2 heads, 257 symbols, context 64" in told
    assert "tokenizer   bytes, lossless: True" in told
    assert f"SHA-256     {file_sha256(model)}" in told
    assert underpar("info", text).failed_with("text.txt")
    assert underpar("info", tmp_path / "nowhere").failed_with("nowhere")
    assert underpar("info", tmp_path).failed_with(str(tmp_path))


@pytest.mark.parametrize("data", [b"", b"x", NOISE], ids=["empty", "one", "noise"])
def test_what_needs_no_model_to_come_back(
    model: Path, tmp_path: Path, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("data").write_bytes(data)
    ok("compress", "data", "-a", model)
    assert "model       none needed" in ok("info", "data.up").out
    ok("decompress", "data.up", "-o", "back")
    assert Path("back").read_bytes() == data


def test_the_demos_model_is_the_default(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text").write_bytes(prose(600))
    assert underpar("compress", "text").failed_with("no model to compress with", "make demo")
    assert names(tmp_path) == ["text"]
    Path("runs/demo").mkdir(parents=True)
    Path("runs/demo/model.upar").write_bytes(model.read_bytes())
    ok("compress", "text", "--lanes", 16)
    ok("decompress", "text.up", "-o", "back")
    assert Path("back").read_bytes() == prose(600)
    Path("runs/demo/model.upar").unlink()
    assert underpar("decompress", "text.up", "-f").failed_with("with a model", "--artifact")


# --- mistakes ---------------------------------------------------------------------------------


def test_nothing_is_overwritten_unless_told(model: Path, text: Path, tmp_path: Path) -> None:
    file = tmp_path / "text.txt.up"
    file.write_bytes(b"mine")
    words = ("compress", text, "-a", model, "--lanes", 16)
    assert underpar(*words).failed_with("text.txt.up exists already", "--force")
    assert file.read_bytes() == b"mine"
    ok(*words, "--force")
    text.write_bytes(b"changed")
    words = ("decompress", file, "-a", model)
    assert underpar(*words).failed_with("text.txt exists already")
    assert text.read_bytes() == b"changed"
    ok(*words, "-f")
    assert text.read_bytes() == TEXT


def test_mistakes_are_one_line(model: Path, text: Path, tmp_path: Path) -> None:
    assert underpar("compress", tmp_path / "no", "-a", model).failed_with("cannot read", "no")
    assert underpar("compress", tmp_path, "-a", model).failed_with("cannot read")
    assert underpar("compress", text, "-a", text).failed_with("text.txt")
    assert underpar("compress", text, "-a", tmp_path / "no.upar").failed_with("no.upar")
    assert underpar("decompress", text, "-a", model).failed_with("ends in .up")
    assert underpar("decompress", text, "-o", tmp_path / "x").failed_with("not text compressed by")
    file = tmp_path / "empty.up"
    file.write_bytes(b"")
    assert underpar("decompress", file).failed_with("an empty file")
    assert names(tmp_path) == ["empty.up", "text.txt"]


def test_a_damaged_file_leaves_nothing(model: Path, text: Path, tmp_path: Path) -> None:
    text.write_bytes(prose(300))
    with always_coded():
        ok("compress", text, "-a", model, "--lanes", 16)
    text.unlink()
    file = tmp_path / "text.txt.up"
    data, rng = file.read_bytes(), random.Random(0)
    for _ in range(6):
        at = rng.randrange(len(data))
        damaged = data[:at] if at % 3 == 0 else data[:at] + bytes([data[at] ^ 64]) + data[at + 1 :]
        file.write_bytes(damaged)
        assert underpar("decompress", file, "-a", model).failed_with()
        assert names(tmp_path) == ["text.txt.up"]


def test_another_model_and_another_machine(
    model: Path, tiny_model: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ok("compress", text, "-a", model, "--lanes", 16)
    text.unlink()
    file = tmp_path / "text.txt.up"
    assert underpar("decompress", file, "-a", tiny_model).failed_with("another model")
    monkeypatch.setattr("torch.__version__", "9.8.7")
    refused = underpar("decompress", file, "-a", model)
    assert refused.failed_with("here 9.8.7", "--portable", "--try-anyway")
    assert names(tmp_path) == ["text.txt.up"]
    ok("decompress", file, "-a", model, "--try-anyway")
    assert text.read_bytes() == TEXT


def test_a_full_disk(
    model: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_disk(monkeypatch, 100)
    assert underpar("compress", text, "-a", model, "--lanes", 16).failed_with("cannot write")
    assert names(tmp_path) == ["text.txt"]


# --- pipes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [redirected, slow(piped)])
def test_through_pipes(model: Path, how: Callable[..., tuple[int, bytes, str]]) -> None:
    """Nothing but the data on stdout."""
    code, file, err = how(TEXT, "compress", "-", "-a", model, "--lanes", 16)
    assert code == 0, err
    assert f"1,000 bytes -> {len(file):,} bytes" in err
    code, back, err = redirected(file, "decompress", "-", "-a", model)
    assert (code, back) == (0, TEXT), err


def test_a_pipe_that_breaks_off(model: Path, text: Path, tmp_path: Path) -> None:
    ok("compress", text, "-a", model, "--lanes", 16)
    file = (tmp_path / "text.txt.up").read_bytes()
    code, back, err = redirected(file[:-40], "decompress", "-", "-a", model)
    assert (code, back) == (1, b"")
    assert err.startswith("underpar: block 1 is cut short")
    assert err.count("\n") == 1


def test_from_a_file_to_stdout_and_from_stdin_to_a_file(
    model: Path, text: Path, tmp_path: Path
) -> None:
    code, file, err = redirected(b"", "compress", text, "-o", "-", "-a", model, "--lanes", 16)
    assert code == 0, err
    out = tmp_path / "out"
    code, nothing, err = redirected(file, "decompress", "-", "-o", out, "-a", model)
    assert (code, nothing) == (0, b""), err
    assert out.read_bytes() == TEXT


# --- stopped in the middle --------------------------------------------------------------------


def test_ctrl_c_leaves_no_half_file(model: Path, text: Path, tmp_path: Path) -> None:
    text.write_bytes(prose(40_000) * 3)
    process = start("compress", text, "-a", model, "--exact")
    wait_until(lambda: any(tmp_path.glob(".*.part")), process)
    time.sleep(0.5)  # the model is loaded by now, and the text takes minutes
    process.send_signal(signal.SIGINT)
    done = children.end(process, code=None)
    # a shell says 130 for both; the second is how Python ends when it is hit in an import
    assert done.code in (130, -signal.SIGINT), done.err
    assert "Traceback" not in done.err
    assert names(tmp_path) == ["text.txt"]


# --- sample -----------------------------------------------------------------------------------


def test_sample(model: Path) -> None:
    words = ("sample", model, "It was", "--tokens", 40)
    told = ok(*words, "--seed", 3).out
    assert told.startswith("It was")
    assert told.endswith("\n")
    assert len(told.encode()) <= len("It was") + 40 * 3 + 1
    assert ok(*words, "--seed", 3).out == told
    assert ok(*words, "--seed", 4).out != told
    coldest = ok(*words, "--temperature", 0).out
    assert ok(*words, "--temperature", 2, "--top-p", 0.000001).out == coldest
    assert underpar("sample", model, "--tokens", 0).code == 2
    assert underpar("sample", model.with_name("none.upar")).failed_with("none.upar")
