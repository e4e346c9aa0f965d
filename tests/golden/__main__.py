"""``python -m tests.golden DIR``: one line a check, non-zero exit on a FAIL or an empty folder."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

from tests.golden import Check, CheckFunction
from tests.golden.data import CHECKS as DATA
from tests.golden.model import CHECKS as MODEL
from tests.golden.optim import CHECKS as OPTIM
from tests.golden.quant import CHECKS as QUANT
from tests.golden.score import CHECKS as SCORE

CHECKS: dict[str, CheckFunction] = {**MODEL, **OPTIM, **QUANT, **DATA, **SCORE}
#: files that a check of another file reads
COMPANIONS = ("README.md", "ttt_*.npz")


def run(folder: Path) -> Iterator[Check]:
    """Every check that the folder's files allow."""
    for path in sorted(folder.iterdir()):
        if any(fnmatch(path.name, pattern) for pattern in COMPANIONS):
            continue
        check = next((c for pattern, c in CHECKS.items() if fnmatch(path.name, pattern)), None)
        if check is None:
            yield Check(path.name, None, note="no check knows this file")
            continue
        try:
            yield from check(path)
        except Exception as error:  # one broken file must not hide the others
            yield Check(path.name, False, float("nan"), f"{type(error).__name__}: {error}")


def main(arguments: list[str]) -> int:
    if len(arguments) != 1 or not Path(arguments[0]).is_dir():
        print("usage: python -m tests.golden DIR", file=sys.stderr)
        return 2
    results = []
    for check in run(Path(arguments[0])):
        print(check, flush=True)
        results.append(check.ok)
    passed, failed = results.count(True), results.count(False)
    print(f"{passed} passed, {failed} failed, {results.count(None)} skipped")
    return 0 if passed and not failed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
