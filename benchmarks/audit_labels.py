"""The auditor against labelled public submissions: what it finds, misses and condemns wrongly.

    python benchmarks/audit_labels.py --golf GITDIR [--labels labels.csv] [--only 1,2] [--jobs 2]

GITDIR is a local git directory that has the pull requests' heads as refs/pull/N/head. Nothing is
downloaded: files whose contents the mirror lacks are left out. Each submission is laid out in a
temporary folder, audited by ``underpar audit`` in a process of its own, and forgotten; results keep
verdicts, witnesses and figures, none of the code. Rows that are there already are not measured
again, unless --again says so.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from tables import filled
from underpar import storage
from underpar.audit.review import CONDITIONS
from underpar.report.machine import commit, machine, versions
from underpar.report.tables import render

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results" / "audit_labels.json"
PAGE = ROOT / "docs" / "audit.md"
LABELS = ROOT.parent / "shared" / "audit" / "labels.csv"
MOST_FILE = 64 << 20  # bytes of one file of a submission

#: Classes that running the scorer can show.
BEHAVIOUR = (
    "pre_quant_ttt", "slot", "slot_batch_leak", "ngram_target_in_key", "unnormalized", "two_pass",
    "multi_epoch_ttt_last_score", "noncausal", "score_after_update",
)  # fmt: skip
#: Static findings that would condemn, if they could.
SUSPICIONS = frozenset((
    "update_before_score", "target_in_key", "unnormalized_mixture", "delta_shared_by_batch",
    "delta_on_own_window", "last_epoch_accumulator", "second_pass", "noncausal_attention",
    "gate_on_target", "byte_count", "val_calibration", "shipped_tokens",
))  # fmt: skip
CLAIM_OF = {"over_size": "size", "eval_over_600s": "eval_time", "byte_count": "bytes"}


class Mirror:
    """A local git directory, read without ever asking a remote."""

    def __init__(self, folder: Path) -> None:
        self._git = ["git", "-c", "protocol.allow=never", "-c", "core.quotePath=false",
                     "--git-dir", str(folder)]  # fmt: skip

    def head(self, pr: str) -> str:
        """The commit of a pull request's head; '' when the mirror lacks it."""
        return (
            self._run("rev-parse", "--verify", "--quiet", f"refs/pull/{pr}/head").decode().strip()
        )

    def lay_out(self, head: str, script: str, folder: Path) -> Path:
        """Write the submission's folder below ``folder``; returns the script's path there.

        A script at the top of the repository comes with the files beside it, but with none of the
        folders and not with the README, which belong to the contest.
        """
        parent = str(PurePosixPath(script).parent)
        below = ["-r", head, f"{parent}/"] if parent != "." else [head]
        for line in self._run("ls-tree", "-l", "-z", *below).decode().split("\0"):
            meta, _, name = line.partition("\t")
            words = meta.split()
            if len(words) != 4 or words[0] not in ("100644", "100755") or not words[3].isdigit():
                continue  # a link, a module, a folder, or contents that are not here ("BAD")
            if int(words[3]) > MOST_FILE or (parent == "." and name.startswith("README")):
                continue
            path = folder / name
            if not path.resolve().is_relative_to(folder.resolve()):
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self._run("cat-file", "blob", words[2]))
        return folder / script

    def _run(self, *words: str) -> bytes:
        environment = {**os.environ, "GIT_NO_LAZY_FETCH": "1", "GIT_TERMINAL_PROMPT": "0"}
        return subprocess.run([*self._git, *words], capture_output=True, env=environment).stdout


def measure(mirror: Mirror, row: dict[str, str], seconds: float) -> dict[str, Any]:
    """Audit one labelled submission and keep what may be kept."""
    label = {"pr": row["pr"], "label": row["label"], "classes": row["classes"].split(";")}
    head = mirror.head(row["pr"])
    result: dict[str, Any] = {**label, "head": head, "script": row["head_path"]}
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="underpar-labels-") as name:
        script = mirror.lay_out(head, row["head_path"], Path(name)) if head else Path(name, "none")
        if not script.is_file():
            return {**result, "missing": "the mirror has no such script"}
        out = Path(name, "audit.json")
        command = [sys.executable, "-m", "underpar", "audit", str(script), "--json", str(out),
                   "--seconds", str(seconds)]  # fmt: skip
        try:
            done = subprocess.run(command, capture_output=True, text=True, errors="replace",
                                  timeout=seconds + 300)  # fmt: skip
            found = json.loads(out.read_text())
        except (OSError, ValueError, subprocess.TimeoutExpired) as error:
            return {**result, "error": f"{type(error).__name__}: {error}"[:300]}
    result |= {
        "seconds": round(time.monotonic() - start, 1),
        "exit_code": done.returncode,
        "conditions": {
            name: {"verdict": c["verdict"], "told": (c["witness"] or c["why"])[:300]}
            for name, c in found["conditions"].items()
        },
        "findings": sorted({f"{f['kind']}:{f['code']}" for f in found["findings"]}),
        "claims": {c["name"]: c["verdict"] for c in found["claims"]},
        "runs": [run["status"] for run in found.get("runs", [])],
        "errors": [r["error"][:300] for r in found.get("runs", []) if r["status"] != "finished"],
    }
    return result


def condemned(row: dict[str, Any]) -> list[str]:
    """Conditions that a run showed violated, and a denominator that a run found wrong."""
    return violated(row) + [n for n in row.get("findings", ()) if n == "dynamic:byte_count"]


def violated(row: dict[str, Any]) -> list[str]:
    return [n for n, c in row.get("conditions", {}).items() if c["verdict"] == "violated"]


def has_verdict(row: dict[str, Any]) -> bool:
    """Something is violated, or everything holds."""
    verdicts = [c["verdict"] for c in row.get("conditions", {}).values()]
    return bool(violated(row)) or verdicts == ["holds"] * len(CONDITIONS)


def found(row: dict[str, Any], kind: str) -> bool:
    """Whether the audit found this class of violation in it."""
    if kind not in CLAIM_OF:
        return bool(violated(row))
    behaviour = f"dynamic:{kind}" in row.get("findings", ())
    return behaviour or row.get("claims", {}).get(CLAIM_OF[kind]) == "violated"


def suspected(row: dict[str, Any]) -> bool:
    """Whether reading alone would have condemned it."""
    kinds = (name.partition(":") for name in row.get("findings", ()))
    return any(kind == "static" and code in SUSPICIONS for kind, _, code in kinds)


def table(rows: Sequence[dict[str, Any]], *, markdown: bool = False) -> str:
    """A line a class: scripts, with a verdict, found by running, suspected by reading, seconds."""
    head = ("class", "scripts", "verdict", "found by running", "suspected by reading", "median s")
    lines: list[tuple[str, ...]] = []
    for name in [*BEHAVIOUR, *CLAIM_OF]:
        some = [r for r in rows if r["label"] == "illegal" and name in r["classes"]]
        if some:
            judged = some if name in CLAIM_OF else [r for r in some if has_verdict(r)]
            lines.append(_line(name, some, sum(found(r, name) for r in judged), len(judged)))
    behaviour = [r for r in rows if r["label"] == "illegal" and set(r["classes"]) & {*BEHAVIOUR}]
    judged = [r for r in behaviour if has_verdict(r)]
    total = sum(bool(condemned(r)) for r in judged)
    lines.append(_line("all that running can show", behaviour, total, len(judged)))
    for label, what in (("legal", "legal (alarms)"), ("unclear", "unclear (alarms)")):
        some = [r for r in rows if r["label"] == label]
        lines.append(_line(what, some, sum(bool(condemned(r)) for r in some), len(some)))
    lines.append((*_line("all", rows, 0, 0)[:3], "", *_line("all", rows, 0, 0)[4:]))
    return render(head, lines, markdown=markdown)


def _line(name: str, rows: Sequence[dict[str, Any]], count: int, judged: int) -> tuple[str, ...]:
    share = sum(map(has_verdict, rows)) / len(rows) if rows else 0.0
    seconds = [r["seconds"] for r in rows if "seconds" in r]
    median = f"{statistics.median(seconds):.0f}" if seconds else ""
    read = f"{sum(map(suspected, rows))} of {len(rows)}"
    return (name, str(len(rows)), f"{share:.0%}", f"{count} of {judged}", read, median)


class Results:
    """Rows by pull request, written after each one."""

    def __init__(self, path: Path, again: bool) -> None:
        self._path, self._lock = path, threading.Lock()
        self.rows: dict[str, dict[str, Any]] = {}
        if path.exists() and not again:
            self.rows = {r["pr"]: r for r in json.loads(path.read_text())["rows"]}

    def add(self, row: dict[str, Any]) -> None:
        with self._lock:
            self.rows[row["pr"]] = row
            rows = sorted(self.rows.values(), key=lambda r: int(r["pr"]))
            facts = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "commit": commit(),
                     "machine": asdict(machine()), "versions": versions()}  # fmt: skip
            text = json.dumps({**facts, "table": table(rows).splitlines(), "rows": rows}, indent=1)
            storage.write_text(self._path, text + "\n")

    def has(self, row: dict[str, str], mirror: Mirror) -> bool:
        kept = self.rows.get(row["pr"], {})
        return "conditions" in kept and kept["head"] == mirror.head(row["pr"])


def run(todo: Iterable[dict[str, str]], mirror: Mirror, results: Results, jobs: int,
        seconds: float) -> None:  # fmt: skip
    """Measure ``todo``; each row is kept as soon as it is there."""
    todo = list(todo)

    def one(row: dict[str, str]) -> None:
        measured = measure(mirror, row, seconds)
        results.add(measured)
        bad = condemned(measured)
        told = ", ".join(bad) or ("clean" if has_verdict(measured) else "no verdict")
        print(
            f"{row['pr']:>5} {row['label']:<8} {told} ({measured.get('seconds', 0)} s)", flush=True
        )

    with ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(one, row) for row in todo]
        try:
            for future in futures:
                future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--golf", type=Path, required=True, metavar="GITDIR")
    parser.add_argument("--labels", type=Path, default=LABELS)
    parser.add_argument("--only", default="", help="pull requests, separated by commas")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=300.0, help="of runs for each script")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--again", action="store_true", help="measure what is there already, too")
    options = parser.parse_args()
    wanted = set(filter(None, options.only.split(",")))
    with options.labels.open(encoding="utf-8", newline="") as handle:
        rows = [row for row in csv.DictReader(handle) if not wanted or row["pr"] in wanted]
    mirror = Mirror(options.golf)
    results = Results(options.out, options.again and not wanted)
    todo = [row for row in rows if options.again or not results.has(row, mirror)]
    run(todo, mirror, results, options.jobs, options.seconds)
    everything = list(results.rows.values())
    print(table(everything))
    if options.out == RESULTS:
        page = PAGE.read_text(encoding="utf-8")
        storage.write_text(PAGE, filled(page, {"labels": table(everything, markdown=True)}))


if __name__ == "__main__":
    main()
