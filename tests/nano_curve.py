"""The losses of ``underpar train nano``, step by step, as they were when they were last written.

    python -m tests.nano_curve            compares, and says how far off it is
    python -m tests.nano_curve --write    writes them anew, where a change of the curve is meant

A test that compares one of our runs with another cannot see a change that both have: a schedule
that ends a step early, an optimizer without its weight decay. This can.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import torch

from tests.commands import metrics, underpar

PATH = Path(__file__).parent / "data" / "nano_curve.json"
COMMAND = "python -m tests.nano_curve --write"


def golden() -> list[float]:
    """Nats a token, one a step."""
    return json.loads(PATH.read_text())["losses"]


def worst(found: list[float]) -> float:
    """The largest difference of a step's loss from the golden one."""
    return max(abs(a - b) for a, b in zip(found, golden(), strict=True))


def losses(run: Path) -> list[float]:
    """The same of a run folder."""
    return [row["loss"] for row in metrics(run)]


def main(arguments: list[str]) -> int:
    with tempfile.TemporaryDirectory() as folder:
        done = underpar("train", "nano", "--out", Path(folder) / "n")
        assert done.code == 0, done.err
        found = losses(Path(folder) / "n")
    if PATH.exists():
        print(
            f"{len(found)} steps, {torch.get_num_threads()} threads: off by {worst(found):.1e} nats"
        )
    if "--write" in arguments:
        text = "losses of `underpar train nano`, nats a token, one a step"
        notes = {"what": text, "command": COMMAND, "torch": torch.__version__.split("+")[0]}
        PATH.write_text(json.dumps({**notes, "losses": found}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
