"""underpar audit: exit codes, files, batches, and how it fails. The probing is mostly pretended."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import children
from tests.audit_runner import SCRIPTS
from tests.children import wait_until
from tests.commands import start, underpar
from tests.test_audit_review import WITNESS, condition
from tests.test_audit_sandbox import wait
from underpar.audit import audit as whole
from underpar.audit.facts import Condition, Finding, Job, Outcome, StreamSpec, Submission
from underpar.audit.review import CONDITIONS
from underpar.errors import DataError

JOB = Job("", "train.py", {}, {}, 1, StreamSpec(64, 256, 0), 0, 60.0, 512)
Judge = Callable[[Submission], list[Condition]]


def judged(word: str) -> list[Condition]:
    letters = {"h": "holds", "v": "violated", "n": "not_exercised"}
    return [
        condition(name, letters[letter], witness=WITNESS if letter == "v" else "")
        for name, letter in zip(CONDITIONS, word)
    ]


@pytest.fixture
def verdicts(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Name of a submission's folder -> letters of its four verdicts; 'hhhh' where it has none."""
    wanted: dict[str, str] = {}

    def investigate(sub: Submission, run: object) -> tuple[list[Outcome], list[Condition], list]:
        outcome = Outcome("finished", 1.0, (), "", "", (), {"width": 32})
        return [outcome], judged(wanted.get(sub.root.name, "hhhh")), []

    monkeypatch.setattr(whole.probe, "investigate", investigate)
    monkeypatch.setattr(whole.claims, "check", lambda sub: [])
    monkeypatch.setattr(whole.source, "findings", lambda sub: [])
    return wanted


def script(folder: Path, name: str = "sub") -> Path:
    path = folder / name / "train_gpt.py"
    path.parent.mkdir()
    path.write_text("print(1)\n")
    return path.parent


@pytest.mark.parametrize(("word", "code"), [("hhhh", 0), ("hhvh", 1), ("hhhn", 3)])
def test_exit_codes_and_files(
    word: str, code: int, tmp_path: Path, verdicts: dict[str, str]
) -> None:
    verdicts["sub"] = word
    files = [tmp_path / "new" / f"a.{kind}" for kind in ("json", "md", "html")]
    done = underpar(
        "audit", script(tmp_path), "--json", files[0], "--markdown", files[1], "--html", files[2]
    )
    assert done.code == code, done
    found = json.loads(files[0].read_text())
    assert found["exit_code"] == code
    shown = " ".join(done.out.split())
    for text in (shown, files[0].read_text(), files[1].read_text(), files[2].read_text()):
        assert (WITNESS in text) == (code == 1)


@pytest.mark.parametrize(
    "line", ["audit", "audit a --batch b", "audit a --seconds 0", "audit a --nonsense"]
)
def test_usage(line: str) -> None:
    assert underpar(*line.split()).code == 2


def test_a_path_that_is_none_is_usage_and_in_the_json(tmp_path: Path) -> None:
    done = underpar("audit", tmp_path / "none", "--json", tmp_path / "a.json")
    assert done.code == 2
    assert len(done.err.splitlines()) == 1
    found = json.loads((tmp_path / "a.json").read_text())
    assert found["exit_code"] == 2
    assert {c["verdict"] for c in found["conditions"].values()} == {"not_exercised"}


def test_a_bug_of_ours_is_no_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(path: Path) -> Submission:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(whole.submission, "read", broken)
    done = underpar("audit", tmp_path, "--json", tmp_path / "a.json")
    assert done.code == 3
    assert "Traceback" in done.err
    assert "ours" in json.loads((tmp_path / "a.json").read_text())["error"]


@pytest.mark.parametrize("part", ["probe.investigate", "claims.check", "source.findings"])
def test_a_part_that_fails_is_a_caveat(
    part: str, tmp_path: Path, verdicts: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_args: object) -> None:
        raise RecursionError("deep")

    module, name = part.split(".")
    monkeypatch.setattr(getattr(whole, module), name, broken)
    found = whole.audit(script(tmp_path))
    assert any("RecursionError: deep" in caveat for caveat in found.caveats)
    assert found.exit_code == (3 if module == "probe" else 0)


def test_refused_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = Outcome("refused", 0.0, (), "", "no walls here", (), {})
    monkeypatch.setattr(whole.sandbox, "run", lambda job, trust: refused)
    monkeypatch.setattr(whole.probe, "investigate", lambda sub, run: ([run(JOB)], [], []))
    found = whole.audit(script(tmp_path))
    assert found.exit_code == 3
    assert {c.why for c in found.conditions} == {"no walls here"}


def test_all_runs_share_the_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[float, bool]] = []

    def run(job: Job, *, trust: bool) -> Outcome:
        seen.append((job.seconds, trust))
        return Outcome("finished", 1.0, (), "", "", (), {})

    monkeypatch.setattr(whole.sandbox, "run", run)
    assert whole.Runner(30.0, True)(JOB).status == "finished"
    assert 29 < seen[0][0] <= 30
    assert seen[0][1]
    assert whole.Runner(500.0, False)(JOB).status == "finished"
    assert seen[1] == (60.0, False)
    assert whole.Runner(0.0, False)(JOB).status == "timeout"
    assert len(seen) == 2


def test_what_was_seen_stands_before_what_was_read() -> None:
    read = Finding("network", "a", "f", 3, "static")
    run = Finding("network", "b", "f", 3, "dynamic")
    assert whole._once([run, read, read]) == (run,)


def test_batch(tmp_path: Path, verdicts: dict[str, str]) -> None:
    verdicts |= {"b": "vhhh", "c": "nnnn"}
    names = [*(str(script(tmp_path, name)) for name in "abc"), str(tmp_path / "none")]
    (tmp_path / "list").write_text("\n".join(names))
    done = underpar(
        "audit", "--batch", tmp_path / "list", "--json", tmp_path / "a.json",
        "--markdown", tmp_path / "a.md", "--html", tmp_path / "a.html",
    )  # fmt: skip
    assert done.code == 1
    assert "1 clean, 1 violated, 1 without a verdict" in done.out
    found = json.loads((tmp_path / "a.json").read_text())
    assert [entry["exit_code"] for entry in found["audits"]] == [0, 1, 3, 2]
    for name in ("a.md", "a.html"):
        assert names[1] in (tmp_path / name).read_text()


def test_ctrl_c_keeps_what_is_done(
    tmp_path: Path, verdicts: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [str(script(tmp_path, name)) for name in "ab"]
    (tmp_path / "list").write_text("\n".join(names))
    read = whole.submission.read

    def interrupted(path: Path) -> Submission:
        if path.name == "b":
            raise KeyboardInterrupt
        return read(path)

    monkeypatch.setattr(whole.submission, "read", interrupted)
    done = underpar("audit", "--batch", tmp_path / "list", "--json", tmp_path / "a.json")
    assert done.code == 130
    assert "1 clean" in done.out
    assert len(json.loads((tmp_path / "a.json").read_text())["audits"]) == 1


def test_empty_list_is_usage(tmp_path: Path) -> None:
    (tmp_path / "list").write_text("# nothing\n")
    assert underpar("audit", "--batch", tmp_path / "list").code == 2
    assert underpar("audit", "--batch", tmp_path / "none").code == 2


@pytest.mark.parametrize(
    ("name", "code"), [("legal", 0), pytest.param("violating", 1, marks=pytest.mark.slow)]
)
def test_the_whole_of_it_with_a_real_jail(name: str, code: int, tmp_path: Path) -> None:
    answer = tmp_path / "a.json"
    done = underpar("audit", SCRIPTS / f"two_pass_{name}.py", "--json", answer)
    if "cannot lock in" in done.out:
        pytest.skip("no isolation here")
    assert done.code == code, done
    found = json.loads(answer.read_text())["conditions"]
    broken = {word for word, told in found.items() if told["verdict"] != "holds"}
    assert broken == ({"causal", "score_first", "single_pass"} if code else set())
    assert all("token" in found[word]["witness"] for word in broken)


def test_an_interrupt_from_outside_ends_the_run(tmp_path: Path) -> None:
    path = script(tmp_path)
    (path / "train_gpt.py").write_text("val_loss = 0\nwhile True:\n    val_loss += 1\n")
    process = start("audit", path)
    jail = f"/proc/{process.pid}/task/{process.pid}/children"
    if not Path(jail).exists():
        pytest.skip("the kernel does not list children")
    wait_until(lambda: bool(Path(jail).read_text()), process)
    jailed = Path(jail).read_text().split()
    process.send_signal(signal.SIGINT)
    done = children.end(process, code=130)
    assert "Traceback" not in done.err
    wait(lambda: not any(alive(int(child)) for child in jailed))


def alive(process: int) -> bool:
    """Runs still; one that ended and that nobody has asked about is not alive."""
    try:
        return bool(Path(f"/proc/{process}/cmdline").read_bytes())
    except OSError:
        return False


def test_errors_are_data_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        whole.audit(tmp_path / "none")
