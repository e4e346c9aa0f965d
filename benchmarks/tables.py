"""Fill the README's marked tables from the demo's record. Nothing in them is typed.

python benchmarks/tables.py            rewrite README.md
python benchmarks/tables.py --check    exit 1 if it is not what the record says
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from underpar.bits import megabytes
from underpar.report.compressors import Row
from underpar.report.record import Record
from underpar.report.tables import comparison_table, stage_table

ROOT = Path(__file__).resolve().parent.parent
RECORD = ROOT / "benchmarks" / "results" / "demo_cpu.json"


def tables(record: Record) -> dict[str, str]:
    """Name of a mark in the README -> what belongs between its lines."""
    train, artifact, machine = record.train, record.artifact, record.machine
    assert train is not None
    assert artifact is not None
    rows = [Row(**row) for row in record.diagnostics["compressors"]]
    caption = (
        f"`{record.command}` on {machine.cores} cores of an {machine.cpu}: {train.steps:,} steps, "
        f"{train.tokens:,} tokens in {train.seconds:.0f} s; one seed. Model and code: "
        f"{artifact.total_bytes:,} bytes ({megabytes(artifact.total_bytes)})."
    )
    return {
        "demo": f"{stage_table(record, markdown=True)}\n\n{caption}",
        "compressors": comparison_table(record, rows, markdown=True),
    }


def filled(text: str, contents: dict[str, str]) -> str:
    """``text`` with every marked table replaced."""
    for name, content in contents.items():
        pattern = rf"(<!-- table: {name} -->\n).*?(<!-- /table -->)"
        text, n = re.subn(pattern, lambda m: f"{m[1]}{content}\n{m[2]}", text, flags=re.DOTALL)  # noqa: B023
        assert n == 1, f"README.md has {n} marks for table '{name}'"
    return text


def main() -> int:
    readme = ROOT / "README.md"
    before = readme.read_text(encoding="utf-8")
    after = filled(before, tables(Record.read(RECORD)))
    if sys.argv[1:] == ["--check"]:
        return int(before != after)
    readme.write_text(after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
