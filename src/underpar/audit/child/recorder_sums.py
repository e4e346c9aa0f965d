"""The sums of a run, laid out as contributions: one row per element that reached an accumulator."""

from __future__ import annotations

from typing import Any

import numpy as np

from .recorder_codes import SCORE
from .recorder_printed import shown_bags
from .recorder_state import Recording

FEWEST = 16  # elements of an accumulator worth writing down


def accumulators(
    recording: Recording, line: int | None = None
) -> tuple[list[dict[str, Any]], dict[str, list[float]]]:
    """Laid-out contributions and sums of every accumulator of some size (that grew on a line)."""
    groups: list[dict[str, Any]] = []
    sums: dict[str, list[float]] = {"s_seq": [], "s_value": [], "s_count": [], "s_line": []}
    shown = shown_bags(recording)
    for code in recording.lineage.groups(len(recording.stream) // 4, shown):
        if line is not None and not recording.lineage.touches(code, line):
            continue
        table: dict[str, Any] = recording.lineage.lay_out(code)
        if len(table.get("code", ())) < FEWEST:
            continue
        table = joined(table)
        if len(table["code"]) < FEWEST:
            continue
        weight = table["weight"] / np.median(table["weight"])
        bag = recording.lineage.bags[-code - 2]
        table["last"], table["root"] = -code - 2, bag.group
        groups.append(table)
        sums["s_seq"].append(bag.seq)
        sums["s_line"].append(bag.line)
        sums["s_value"].append(float((table["value"] * weight).sum()))
        sums["s_count"].append(float(weight.sum()))
    return groups, sums


def joined(table: dict[str, Any]) -> dict[str, Any]:
    """The parts of one element (bytes of a token) become one; what was taken back is dropped.

    A score that is subtracted again (the early pass of a second scoring) leaves nothing behind.
    """
    _, first, inverse = np.unique(table["code"], return_index=True, return_inverse=True)
    net = np.bincount(inverse, weights=table["value"] * table["weight"])
    net = net if net.sum() >= 0 else -net  # a sum of log probabilities, negated later
    gross = np.bincount(inverse, weights=np.abs(table["value"] * table["weight"]))
    weight = np.zeros(len(first))
    np.maximum.at(weight, inverse, np.abs(table["weight"]))
    left = np.abs(net) > 1e-9 * gross
    order = np.argsort(first)
    order = order[left[order]]
    out = {name: column[first[order]] for name, column in table.items()}
    out["value"], out["weight"] = net[order] / weight[order], weight[order]
    return out


def scored(recording: Recording) -> dict[str, np.ndarray]:
    """Scores of the accumulator that a replay is about: the largest, then last, on its line.

    Those that began before the replay are other evaluations by the same code.
    """
    line, clock = int(recording.replay["line"]), int(recording.replay["clock"])
    for where in (line, None):
        groups = [g for g in accumulators(recording, where)[0] if g["kind"][0] == SCORE]
        groups = [g for g in groups if line in (g["line"][-1], g["line"][0])]
        groups = [g for g in groups if np.nanmin(g["seq"]) > clock]
        if groups:
            most = max(len(g["value"]) for g in groups)
            table = [g for g in groups if len(g["value"]) == most][-1]
            return {k: table[k] for k in ("pos", "seq", "line", "value", "nll", "digest")}
    return {}
