"""What every benchmark writes: its figures, and what they were measured on."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from underpar import storage
from underpar.report.machine import commit, machine, versions

RESULTS = Path(__file__).parent / "results"


def write(name: str, payload: dict[str, Any]) -> Path:
    """``results/<name>.json``: payload with machine, versions, commit and date."""
    facts = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": asdict(machine()),
        "versions": versions(),
    }
    path = RESULTS / f"{name}.json"
    storage.write_text(path, json.dumps({**facts, **payload}, indent=1) + "\n")
    return path
