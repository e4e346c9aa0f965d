"""What the README promises exists: every command line, file and preset; its Python runs."""

from __future__ import annotations

import re
import runpy
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main

from tests.commands import Run
from underpar.cli.main import app
from underpar.recipe.presets import PRESETS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")

PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))),
]

#: what ends a command in a shell line
OPERATORS = {"|", ">", ">>", "&&", "||", ";", "2>"}


def code_lines(text: str) -> list[str]:
    """The lines of fenced and indented code blocks, continued lines joined."""
    fenced = re.findall(r"^```[^\n]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    rest = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    indented = re.findall(r"^ {4}(\S.*)$", rest, re.MULTILINE)
    return [*"\n".join(fenced).replace("\\\n", " ").splitlines(), *indented]


def commands(text: str) -> list[list[str]]:
    """Arguments of every ``underpar ...`` or ``... -m underpar ...`` in the code of ``text``."""
    found = []
    for line in code_lines(text):
        if "underpar " not in line:
            continue
        words = shlex.split(line.removeprefix("$ "), comments=True)
        starts = [i for i, w in enumerate(words) if w == "underpar" or w.endswith("/underpar")]
        for start in starts:
            if start == 0 or words[start - 1] in {"-m", *OPERATORS}:
                rest = words[start + 1 :]
                end = next((i for i, word in enumerate(rest) if word in OPERATORS), len(rest))
                found.append(rest[:end])
    return found


def parse(arguments: list[str]) -> dict[str, Any]:
    """The parameters of a command line, as typer reads them; it is not run.

    Raises typer's usage errors: no such command or option, a missing argument, a wrong type.
    """
    command: Any = typer.main.get_command(app)
    rest = list(arguments)
    while hasattr(command, "commands"):
        name = rest.pop(0) if rest else ""
        assert name in command.commands, f"no command '{name}' in {arguments}"
        command = command.commands[name]
    return command.make_context(command.name, rest).params


@pytest.mark.parametrize("arguments", commands(README), ids=" ".join)
def test_a_command_line_of_the_readme_parses(arguments: list[str]) -> None:
    recipe = parse(arguments).get("recipe", "demo")
    assert recipe in PRESETS or recipe.endswith(".toml")


def test_the_readme_shows_commands() -> None:
    shown = {arguments[0] for arguments in commands(README)}
    assert {"train", "pack", "score", "recipes", "data"} <= shown


def test_a_wrong_command_line_would_be_noticed() -> None:
    text = "\n".join(
        [
            "    $ underpar train nano --set a=b --seed 3 && underpar trian nano",
            "```sh",
            "torchrun --nproc-per-node 8 -m underpar train pr1413 \\",
            "    --nonsense 3 | tee log  # comment",
            "```",
            "and `underpar is` a word in a sentence",
        ]
    )
    continued, right, mistyped = commands(text)
    assert continued == ["train", "pr1413", "--nonsense", "3"]
    assert parse(right)["seed"] == 3
    for wrong in (continued, mistyped, ["train"]):
        with pytest.raises(Exception, match=r"trian|nonsense|recipe"):
            parse(wrong)


@pytest.mark.parametrize("name", PAGES)
def test_every_linked_file_exists(name: str) -> None:
    path = ROOT / name
    links = re.findall(r"\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"", path.read_text("utf-8"))
    targets = [a or b for a, b in links if not (a or b).startswith(("http", "#", "mailto:"))]
    missing = [t for t in targets if not (path.parent / t.partition("#")[0]).exists()]
    assert not missing


def test_make_targets_exist() -> None:
    targets = re.findall(r"^([a-z.-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for name in re.findall(r"^(?: {4}|.*`)make ([a-z-]+)", README, re.MULTILINE):
        assert name in targets


def test_the_library_example_runs(
    nano_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    section = README.partition("## As a library\n")[2].partition("\n## ")[0]
    (example,) = re.findall(r"^```python\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    assert example.count('"runs/demo/model.upar"') == 1
    assert example.splitlines()[-1].startswith("assert ")
    script = tmp_path / "example.py"
    model = repr(str(nano_run["model.upar"]))
    script.write_text(example.replace('"runs/demo/model.upar"', model), "utf-8")
    runpy.run_path(str(script))
    assert re.search(r"^\d\.\d{3} bits per byte$", capsys.readouterr().out, re.MULTILINE)
