"""The report: whole, small, alone, and with the record's numbers; in a browser, too."""

from __future__ import annotations

import json
import re
import shutil
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from tests import children
from tests.test_curves import stream
from underpar.artifact.budget import account
from underpar.artifact.pack import file_sha256
from underpar.bits import LN2, Score
from underpar.codec.prove import Proof
from underpar.data.tokenizer import ByteTokenizer
from underpar.data.validation import ValidationSet
from underpar.recipe.schema import Recipe
from underpar.report.compressors import Row
from underpar.report.page import MOST_BYTES, write_report
from underpar.report.record import ArtifactFacts, Record
from underpar.report.tables import verdict

VOID = {"meta", "wbr", "br", "link", "img", "input", "hr"}
EVIL = "<script>alert('x')</script> & naïve 日本\n"
TEXTS = [
    EVIL + "A speech of many words. " * 20,
    *(f"Document {i}, shorter. " * 8 for i in range(5)),
]
SECTIONS = (
    "Training",
    "Along the validation text",
    "Where the bytes went",
    "What quantization lost",
    "Document by document",
    "Where it is surprised",
    "The proof",
    "Against general compressors",
    "Scores",
    "Commands",
)


@dataclass
class Page(HTMLParser):
    """A page, read strictly: every element that is opened is closed, in order."""

    source: str
    open: list[str] = field(default_factory=list)
    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.source)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.said.append(data)

    @property
    def text(self) -> str:
        return "".join(self.said)

    def section(self, title: str) -> str:
        """Its HTML."""
        return self.source.partition(f"<h2>{title}</h2>")[2].partition("</section>")[0]


@dataclass(frozen=True)
class Made:
    """A run folder of invented losses, and the stream they are of."""

    run: Path
    data: ValidationSet
    nll: dict[str, np.ndarray]
    record: Record

    def page(self, **changes: object) -> Page:
        how = {"nll": self.nll, "validation": self.data, "tokenizer": ByteTokenizer(), **changes}
        return Page(write_report(self.run, **how).read_text("utf-8"))  # type: ignore[arg-type]


def losses(data: ValidationSet, bits: float, seed: int) -> np.ndarray:
    spread = np.random.default_rng(seed).gamma(0.5, 2 * bits * LN2, data.n_targets)
    return spread.astype(np.float32)


def proven(score: Score) -> dict[str, object]:
    return Proof(
        claim=score,
        coded_bits=4321,
        file_bytes=600,
        lanes=0,
        adapts=True,
        text_same=True,
        encode_seconds=1.0,
        decode_seconds=2.0,
    ).to_json()


def make(run: Path, texts: Sequence[str], model: Path | None = None) -> Made:
    data = stream(*texts)
    stages = {"quantized": 2.5, "sliding": 2.4, "ttt": 1.9}
    nll = {stage: losses(data, bits, 7) for stage, bits in stages.items()}
    record = Record.start(Recipe(name="<b>toy</b>"), command="underpar train 'x & y' --seed 3")
    for stage, values in nll.items():
        score = Score(float(values.sum(dtype=np.float64)), data.n_targets, data.true_bytes, 1.0)
        record = record.with_stage(stage, score)
    errors = {"blocks.0.attn.c_q.weight": 0.0123, "blocks.1.mlp.fc.weight": 0.0456,
              "tok_emb.weight": 0.0078, "smear.gate": 3e-8}  # fmt: skip
    row = {"name": "gzip", "alone_bytes": 400, "with_prior_bytes": 390, "seconds": 1.0,
           "missing": None, "text_bytes": data.true_bytes}  # fmt: skip
    absent = {**row, "name": "zpaq", "alone_bytes": None, "with_prior_bytes": None,
              "missing": "package <zpaq> is not installed"}  # fmt: skip
    record = record.with_diagnostic("quantization_error", errors)
    record = record.with_diagnostic("compressors", [row, absent])
    record = record.with_diagnostic("proof", proven(record.stages["ttt"]))
    run.mkdir(exist_ok=True)
    if model:
        shutil.copy(model, run / "model.upar")
        counted = account(model, Recipe().budget, 31_033)
        record = record.with_artifact(
            ArtifactFacts(
                file_bytes=counted.file_bytes,
                code_bytes=counted.code_bytes,
                total_bytes=counted.total,
                budget_bytes=counted.budget,
                sha256=file_sha256(model),
            )
        )
    steps = ({"step": i, "loss": 9 / i, "lr_scale": 1 - i / 999} for i in range(1, 900))
    (run / "metrics.jsonl").write_text("\n".join(map(json.dumps, steps)))
    record.write(run / "record.json")
    return Made(run, data, nll, record)


@pytest.fixture
def made(tmp_path: Path, tiny_model: Path) -> Made:
    return make(tmp_path / "run", TEXTS, tiny_model)


def test_the_numbers_are_the_records(made: Made) -> None:
    page = made.page(data=Path("the shards"))
    assert [title for title in SECTIONS if page.section(title)] == list(SECTIONS)
    assert 'class="missing"' not in page.source
    best = made.record.stages["ttt"]
    assert f"<b>{best.bpb:.4f}</b>" in page.source
    for score in made.record.stages.values():
        assert f"<td>{score.bpb:.5f}</td>" in page.section("Scores")
    facts = made.record.artifact
    assert facts
    assert f"{facts.total_bytes:,} of {facts.budget_bytes:,} bytes" in page.text
    row = Row(**made.record.diagnostics["compressors"][0])
    assert verdict(made.record, [row])[0] in page.text
    table = unescape(page.section("Against general compressors"))
    assert f"{8 * 390 / made.data.true_bytes:.3f}" in table
    assert "package <zpaq> is not installed" in table
    errors = page.section("What quantization lost")
    assert ">1.23<" in errors
    assert ">4.56<" in errors
    assert "0.78%" in errors


def test_the_proof_is_the_records(made: Made) -> None:
    section = made.page().section("The proof")
    bits = made.record.stages["ttt"].nats / LN2
    assert f"<td>{bits:,.0f}</td>" in section
    assert "<td>4,321</td>" in section
    assert "600 bytes" in section
    assert f"{100 * (4321 / bits - 1):+.4f} %" in section
    assert "NOT proven" in section  # far from the claim
    made.record.with_diagnostic("proof", {"holds": True}).write(made.run / "record.json")
    assert "cannot be read" in made.page().section("The proof")


def test_sizes_of_the_parts_add_up(made: Made) -> None:
    section = made.page().section("Where the bytes went")
    rows = re.findall(r"</span>([^<]+)</th><td>([\d,]+)</td><td>([^<]+)", section)
    sizes = {name: int(size.replace(",", "")) for name, size, share in rows if "not" not in share}
    facts = made.record.artifact
    assert facts
    assert sum(sizes.values()) - sizes["free"] == facts.total_bytes
    assert sum(sizes.values()) == facts.budget_bytes
    assert sizes["code"] == 31_033


def test_the_commands_can_be_copied_as_they_are(made: Made) -> None:
    page = made.page(data=Path("the shards"))
    lines = re.findall(r'<pre class="copy">(.*?)</pre>', page.source)
    typed = [unescape(re.sub(r"<[^>]+>", "", line)) for line in lines]
    model = f"{made.run}/model.upar"
    assert typed == [
        made.record.command,
        f"underpar score {model} --data 'the shards' --stage ttt",
        f"underpar prove {model} --data 'the shards'",
        f"underpar report {made.run} --data 'the shards'",
    ]
    assert "--data DATA" in made.page().text


def test_the_page_needs_nothing_else(made: Made) -> None:
    page = made.page()
    loads = {"src", "href", "srcset", "data", "action", "xlink:href", "poster", "background"}
    for tag, attributes in page.tags:
        assert tag not in {"script", "link", "img", "iframe", "object", "embed", "base", "form"}
        assert not loads & attributes.keys()
        assert not any(name.startswith("on") for name in attributes)
    (style,) = re.findall(r"<style>(.*?)</style>", page.source, re.DOTALL)
    assert "url(" not in style
    assert "@import" not in style
    assert "default-src 'none'" in page.source


def test_what_others_wrote_stays_text(made: Made) -> None:
    page = made.page()
    assert "alert('x')</script> & naïve 日本" in page.text
    assert "<b>toy</b>, seed" in page.text
    assert "<script" not in page.source


def test_a_page_of_ten_long_documents_is_small(tmp_path: Path) -> None:
    texts = [f"<&>{i}" * 1500 for i in range(10)]
    made = make(tmp_path / "run", texts)
    page = made.page()
    assert len(page.source.encode()) < MOST_BYTES
    shown = [int(n.replace(",", "")) for n in re.findall(r"([\d,]+) of 6,000 tokens", page.source)]
    assert len(shown) == 10
    assert all(300 < n <= 1500 for n in shown)


def test_many_documents_are_not_all_drawn(tmp_path: Path) -> None:
    made = make(tmp_path / "run", [f"number {i}" for i in range(200)])
    page = made.page()
    assert page.section("Document by document").count("<rect") == 24
    assert "of 200 documents" in page.text
    assert page.source.count("<details") == 11  # ten documents, and the recipe


def test_a_run_without_adapting_has_one_line(made: Made) -> None:
    stages = {name: score for name, score in made.record.stages.items() if name != "ttt"}
    replace(made.record, stages=stages).write(made.run / "record.json")
    page = made.page()
    assert "test-time training" not in page.section("Along the validation text")
    assert page.section("Along the validation text").count('class="line') == 1
    assert f"<b>{stages['sliding'].bpb:.4f}</b>" in page.source


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    Record.start(Recipe(name="bare")).write(tmp_path / "record.json")
    data = stream("a few words")
    page = Page(
        write_report(tmp_path, nll={}, validation=data, tokenizer=ByteTokenizer()).read_text()
    )
    for title in SECTIONS[:-1]:
        assert page.section(title).startswith('<p class="missing">'), title
        assert page.section(title).endswith(".</p>")
    assert "No score yet" in page.text


def test_foreign_data_are_left_out(made: Made, tiny_model: Path) -> None:
    (made.run / "model.upar").write_bytes(tiny_model.read_bytes()[:-1])
    (made.run / "metrics.jsonl").write_text("not json\n")
    foreign = {"compressors": [{"name": "?"}], "quantization_error": [1]}
    replace(made.record, diagnostics=foreign).write(made.run / "record.json")
    page = made.page(nll={stage: values * 2 for stage, values in made.nll.items()})
    for title in SECTIONS[:-2]:
        assert page.section(title).startswith('<p class="missing">'), title
    assert f"<b>{made.record.stages['ttt'].bpb:.4f}</b>" in page.source


NAMES = ("chromium", "chromium-headless-shell", "chromium-browser", "google-chrome", "chrome")


@pytest.fixture(scope="module")
def browser() -> str:
    found = next(filter(None, map(shutil.which, NAMES)), None)
    cache = Path.home() / ".cache/ms-playwright"
    for name in ("headless_shell", "chrome-headless-shell", "chrome"):
        found = found or next(map(str, sorted(cache.glob(f"*/*/{name}"))), None)
    if not found:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} in PATH, none of playwright's")
    return found


def look(browser: str, page: Path, width: int, *how: str) -> children.Ended:
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    options += ["--enable-logging=stderr", f"--user-data-dir={page.parent / 'profile'}"]
    command = [browser, *options, f"--window-size={width},6000", *how, page.as_uri()]
    return children.run(command)


def distinct_rows(png: bytes) -> int:
    """How many different rows of pixels a picture has: one, if it is blank."""
    at, packed, row = 8, b"", 0
    while at < len(png):
        size, kind = struct.unpack(">I4s", png[at : at + 8])
        body = png[at + 8 : at + 8 + size]
        if kind == b"IHDR":
            width, _, _, colour = struct.unpack(">IIBB", body[:10])
            row = 1 + width * {2: 3, 6: 4}[colour]
        packed += body if kind == b"IDAT" else b""
        at += 12 + size
    pixels = zlib.decompress(packed)
    return len({pixels[i : i + row] for i in range(0, len(pixels), row)})


@pytest.mark.browser
@pytest.mark.parametrize("width", [1200, 390])
def test_a_browser_shows_it(made: Made, browser: str, width: int, tmp_path: Path) -> None:
    page, picture = made.run / "report.html", tmp_path / "picture.png"
    source = made.page().source
    seen = look(browser, page, width, f"--screenshot={picture}")
    assert "CONSOLE" not in seen.err
    assert distinct_rows(picture.read_bytes()) > 300
    # the same page, allowed to measure itself
    free = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", source)
    script = "const e = document.documentElement; e.title = [e.scrollWidth, innerWidth]"
    tried = tmp_path / "tried.html"
    tried.write_text(free.replace("</body>", f"<script>{script}</script></body>"))
    sizes = re.search(
        r'<html[^>]* title="(\d+),(\d+)"', look(browser, tried, width, "--dump-dom").out
    )
    assert sizes
    assert int(sizes[1]) <= int(sizes[2])


@pytest.mark.browser
def test_a_browser_would_complain(browser: str, tmp_path: Path) -> None:
    page, picture = tmp_path / "blank.html", tmp_path / "picture.png"
    page.write_text("<script>console.error('no')</script>")
    assert "CONSOLE" in look(browser, page, 390, f"--screenshot={picture}").err
    assert distinct_rows(picture.read_bytes()) < 3
