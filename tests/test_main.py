"""The command itself: how it starts, how it looks, how it fails."""

from __future__ import annotations

import errno
import os
import re
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import underpar as package
from tests import children
from tests.commands import Run, underpar
from underpar import rerun
from underpar.cli.main import main

COMMANDS = {
    (): (
        *("demo", "train", "pack", "score", "data", "recipes"),
        *("compress", "decompress", "info", "prove", "sample"),
        *("report", "compare", "leaderboard", "submit", "seeds", "audit"),
    ),
    ("data",): ("build", "download", "info"),
    ("recipes",): ("list", "show", "from-env"),
}

QUICK = """
import contextlib, io, sys
from underpar.cli.main import main
for line in sys.argv[1:]:
    sys.argv = ["underpar", *line.split()]
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()) as out:
        main()
    assert out.getvalue(), line
heavy = {"torch", "numpy", "sentencepiece", "rich"} & set(sys.modules)
assert not heavy, heavy
"""


def test_help_loads_nothing_heavy() -> None:
    names = [" ".join([*group, name]) for group, names in COMMANDS.items() for name in names]
    lines = ["--version", "--help", *(f"{name} --help" for name in names)]
    children.python("-c", QUICK, *lines)


@pytest.mark.parametrize("group", COMMANDS)
def test_help_lists_every_command(group: tuple[str, ...]) -> None:
    done = underpar(*group, "--help")
    assert done.code == 0
    listed = re.findall(r"^  ([a-z-]+) ", done.out.partition("Commands:")[2], re.MULTILINE)
    assert sorted(listed) == sorted(COMMANDS[group])


def test_version() -> None:
    assert underpar("--version").out == f"underpar {package.__version__}\n"


def test_the_module_and_the_script_are_the_same() -> None:
    (script,) = entry_points(group="console_scripts", name="underpar")
    assert script.load() is main
    done = children.python("-m", "underpar", "--version")
    assert done.out == f"underpar {package.__version__}\n"


@pytest.mark.parametrize(
    "line", ["nonsense", "train", "train nano --nonsense", "score x.upar --data . --stage best"]
)
def test_a_command_that_does_not_exist_is_a_usage_error(line: str) -> None:
    done = underpar(*line.split())
    assert done.code == 2
    assert "Usage: " in done.err
    assert "Error: " in done.err


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("train nan", "Did you mean 'nano'?"),
        ("train nano --set model.n_layr=3", "did you mean 'model.n_layer'"),
        ("train nano --set model.n_layer=many", "model.n_layer"),
        ("train nano --data nowhere --out {tmp}/n", "no shards in nowhere"),
        ("score nothing.upar --data .", "nothing.upar"),
        ("score pyproject.toml --data .", "not an underpar artifact"),
        ("pack {tmp}/typo", "no float.upar"),
        ("data info {tmp}", "no shards"),
        ("recipes show pr14", "Did you mean 'pr1413'"),
    ],
)
def test_a_mistake_is_one_line_without_traceback(line: str, told: str, tmp_path: Path) -> None:
    done = underpar(*line.format(tmp=tmp_path).split())
    assert done.failed_with(told), done
    assert len(done.err.splitlines()) == 1
    assert not (tmp_path / "typo").exists()


def test_a_bug_is_not_hidden(nano_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for bug in (ZeroDivisionError("ours"), OSError(errno.EBADF, "ours")):
        monkeypatch.setattr(rerun, "rescore", _raising(bug))
        with pytest.raises(type(bug), match="ours"):
            underpar("score", nano_run["model.upar"], "--data", nano_run.data)


def test_ctrl_c_is_130(nano_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rerun, "rescore", _raising(KeyboardInterrupt()))
    done = underpar("score", nano_run["model.upar"], "--data", nano_run.data)
    assert (done.code, "Traceback" in done.err) == (130, False)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_log_on_a_full_disk_is_one_line(nano_run: Run, tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    done = underpar("train", "nano", "--data", nano_run.data, "--out", tmp_path)
    assert done.failed_with("cannot write the log", os.strerror(errno.ENOSPC)), done


def _raising(error: BaseException):
    def raise_it(*_args: object, **_keywords: object) -> None:
        raise error

    return raise_it
