"""An audit as text, JSON, Markdown and HTML: what it says, and what it does not let through."""

from __future__ import annotations

import html.parser
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from underpar.audit import batch, markdown, page
from underpar.audit.facts import Claim, Condition, Finding, Outcome, Submission
from underpar.audit.review import CONDITIONS, Audit, not_exercised
from underpar.audit.words import clean, code, escaped

NASTY = (
    "\x1b[31mred\x07 \u202egnp.exe <script>alert(1)</script> @someone #12 | `x` ``` [a](b)\nnext"
)
WITNESS = "flipping token 512 moved the score of token 300 by 0.013 nats (line 812)"


def condition(name: str, verdict: str = "holds", **more: object) -> Condition:
    told = {"witness": "", "evidence": {}, "why": "512 of 512 positions recorded", **more}
    return Condition(name, verdict, **told)  # type: ignore[arg-type]


def made(verdicts: str = "hhhh", **more: object) -> Audit:
    """An audit; a letter a condition: h, v, n."""
    words = {"h": "holds", "v": "violated", "n": "not_exercised"}
    sub = Submission(
        root=Path("/r/records/fast"), script=Path("/r/records/fast/train_gpt.py"), source="x = 1",
        packed=False, files={"train_gpt.py": 15_234, "README.md": 10},
        settings={"TTT_EPOCHS": "3"}, settings_from="README.md", documents={},
    )  # fmt: skip
    meta = {"import_seconds": 3.21, "width": 32, "layers": 2, "vocab": 64, "parameters": 12_345}
    run = Outcome("finished", 12.0, (), "printed", "", ("flash_attn", "triton"), meta)
    audit = Audit(
        submission=sub,
        conditions=tuple(
            condition(name, words[letter], witness=WITNESS if letter == "v" else "")
            for name, letter in zip(CONDITIONS, verdicts)
        ),
        findings=(
            Finding("rescored_positions", "64 twice", "train_gpt.py", 812, "dynamic"),
            Finding("network", "a call", "train_gpt.py", None, "static"),
        ),
        claims=(Claim("size", "holds", "15,900,000", "15,900,123", ""),),
        runs=(run,),
        seconds=13.0,
    )
    return replace(audit, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("verdicts", "verdict", "code"),
    [
        ("hhhh", "clean", 0),
        ("hvhh", "violated", 1),
        ("nvnn", "violated", 1),
        ("hhhn", "no verdict", 3),
        ("nnnn", "no verdict", 3),
    ],
)
def test_verdict_and_exit_code(verdicts: str, verdict: str, code: int) -> None:
    audit = made(verdicts)
    assert (audit.verdict, audit.exit_code) == (verdict, code)
    assert audit.to_json()["exit_code"] == code


@pytest.mark.parametrize(
    ("name", "code"), [("size", 1), ("eval_time", 1), ("seeds", 0), ("significance", 0)]
)
def test_claims_that_the_rules_decide_count(name: str, code: int) -> None:
    assert made(claims=(Claim(name, "violated", "a", "b"),)).exit_code == code
    assert made(claims=(Claim(name, "unknown", "a", ""),)).exit_code == 0


def test_findings_alone_decide_nothing() -> None:
    many = tuple(Finding("target_in_key", "m", "f", 1, "static") for _ in range(9))
    assert made(findings=many).exit_code == 0


def test_json_says_it_all_and_is_json() -> None:
    evidence = {"sums": np.array([1.0, 2.5]), "worst": np.float64("nan"), "n": np.int64(3), 7: {1}}
    broken = condition("causal", "violated", witness=WITNESS, evidence=evidence)
    audit = made()
    audit = replace(audit, conditions=(broken, *audit.conditions[1:]))
    found = json.loads(json.dumps(audit.to_json(), allow_nan=False))
    assert set(found["conditions"]) == set(CONDITIONS)
    causal = found["conditions"]["causal"]
    assert (causal["verdict"], causal["witness"]) == ("violated", WITNESS)
    assert causal["evidence"] == {"sums": [1.0, 2.5], "worst": None, "n": 3, "7": [1]}
    assert found["findings"][0]["code"] == "rescored_positions"
    assert found["claims"][0] == {"name": "size", "verdict": "holds", "claimed": "15,900,000",
                                  "measured": "15,900,123", "note": ""}  # fmt: skip
    assert found["stubs"] == ["flash_attn", "triton"]
    assert "x = 1" not in json.dumps(found)  # no code


def test_evidence_of_any_size_stays_small() -> None:
    deep: dict[str, object] = {}
    deep["again"] = deep
    audit = made()
    big = condition("causal", evidence={"a": np.zeros(10**6), "b": deep, "c": "x" * 10**6})
    audit = replace(audit, conditions=(big, *audit.conditions[1:]))
    assert len(json.dumps(audit.to_json())) < 20_000


def test_text_has_the_witness_and_the_smoke_line() -> None:
    text = made("hvhh").text()
    assert WITNESS in " ".join(text.split())
    smoke = "1 of 1 runs finished in 12 s, import 3.2 s, width 32, layers 2, vocabulary 64, "
    smoke += "12,345 parameters as run, code 15,234 bytes"
    assert smoke in " ".join(text.split())
    assert "train_gpt.py:812" in text
    assert "Not legal as it stands: normalized violated" in text
    assert "flash_attn, triton" in text
    assert max(map(len, text.splitlines())) <= 100


def test_recommendations() -> None:
    assert made().recommendation.startswith("No objection")
    assert "No verdict on causal and single_pass" in made("nhhn").recommendation
    both = made("vvvn", claims=(Claim("size", "violated", "", ""),)).recommendation
    assert "causal, normalized and score_first violated" in both
    assert "its own evidence: size" in both
    assert "single_pass" in both


def nasty() -> Audit:
    """Everything that a submission can name, named badly."""
    audit = made("vnhh")
    root = Path("/r") / NASTY.replace("/", "")
    sub = replace(
        audit.submission, root=root, script=root / "a|b`<b>.py", files={NASTY: 3},
        settings={NASTY: NASTY}, settings_from=NASTY, notes=(NASTY,),
    )  # fmt: skip
    run = Outcome("failed", 1.0, (), NASTY, NASTY, (NASTY,), {"width": NASTY, NASTY: NASTY})
    return replace(
        audit,
        submission=sub,
        runs=(run,),
        conditions=tuple(
            replace(c, witness=NASTY, why=NASTY, evidence={NASTY: NASTY}) for c in audit.conditions
        ),
        findings=(Finding(NASTY, NASTY, NASTY, 3, "static"),),
        claims=(Claim(NASTY, "unknown", NASTY, NASTY, NASTY),),
        caveats=(NASTY,),
    )


def test_nothing_hostile_reaches_a_terminal() -> None:
    text = nasty().text()
    assert all(letter == "\n" or letter.isprintable() for letter in text)
    assert all(ord(letter) >= 32 for letter in json.dumps(nasty().to_json(), indent=None))
    assert "\u202e" not in text


class Tags(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        assert not any(name.startswith("on") or name in ("src", "href") for name, _ in attrs)


def test_nothing_hostile_reaches_the_page() -> None:
    text = page.page(nasty())
    tags = Tags()
    tags.feed(text)
    assert not tags.seen & {"script", "img", "a", "iframe", "link", "b>"}
    assert "default-src 'none'" in text
    assert 'name="viewport"' in text
    assert all(letter.isprintable() or letter == "\n" for letter in text)


def test_nothing_hostile_reaches_the_review() -> None:
    text = markdown.markdown(nasty(), head=NASTY)
    outside = re.sub(r"(?<!`)(`+)(?!`).*?(?<!`)\1(?!`)", "", text)  # of code spans
    assert "someone" in outside
    assert "@someone" not in outside
    assert "#12" not in outside
    assert not re.search(r"(?<!\\)<(?!!-- -->)", outside)
    assert not re.search(r"(?<!\\)\[", outside)
    assert all(letter == "\n" or letter.isprintable() for letter in text)
    for line in text.splitlines():
        if line.startswith("| ") and "condition" not in line:
            assert line.replace("\\|", "").count("|") in (4, 6), line


def test_the_pages_show_what_counts() -> None:
    audit = made("hvhn")
    for text in (page.page(audit), markdown.markdown(audit, head="abc123").replace("\\", "")):
        plain = re.sub("<!-- -->|<wbr>", "", text).replace("&#x27;", "'")
        for part in (WITNESS, "train_gpt.py:812", "rescored_positions", "import 3.2 s",
                     "15,900,123", "flash_attn, triton", "No verdict on single_pass"):  # fmt: skip
            assert part.replace("_", "") in plain.replace("_", ""), part
    assert "`abc123`" in markdown.markdown(audit, head="abc123")


def test_words() -> None:
    assert clean("a\x00b\n c\u202e") == "a\ufffdb c\ufffd"
    assert clean("x" * 500, 10) == "xxxxxxx..."
    assert escaped("a*b_c @me #1 <b>") == "a\\*b\\_c @<!-- -->me #<!-- -->1 \\<b\\>"
    assert escaped("- list") == "\\- list"
    assert escaped("https://x.y www.z") == "https:<!-- -->//x.y www<!-- -->.z"
    assert code("plain") == "`plain`"
    assert code("a``b") == "``` a``b ```"


def test_a_batch_is_counted_and_its_code_is_the_worst() -> None:
    entries = [
        batch.Entry("a", made("hhhh")),
        batch.Entry("b", made("hhhn")),
        batch.Entry("c" + NASTY, made("hvhh")),
        batch.Entry("d", None, "no such file"),
    ]
    text = batch.text(entries)
    assert "1 clean, 1 violated, 1 without a verdict" in text
    assert "d: no such file" in text
    assert [batch.exit_code(entries[:n]) for n in (1, 2, 3)] == [0, 3, 1]
    assert batch.exit_code(entries[3:] + entries[:2]) == 2
    for shown in (text, markdown.summary(batch.rows(entries)), page.summary(batch.rows(entries))):
        assert "\x1b" not in shown
        assert "no verdict" in shown


def test_lists(tmp_path: Path) -> None:
    file = tmp_path / "list"
    file.write_text("# comment\n a \n\nb c\n")
    assert batch.paths(file) == ["a", "b c"]


def test_not_exercised_is_all_four() -> None:
    assert [c.name for c in not_exercised("why")] == list(CONDITIONS)
    assert "why" in Audit(made().submission, not_exercised("why")).text()
