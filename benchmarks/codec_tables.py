"""Tables of what ``codec.py`` measured, for Markdown. Nothing in them is typed."""

from __future__ import annotations

from typing import Any

from underpar.report.tables import render

Facts = dict[str, Any]

WAYS = ("encode", "decode")


def tables(result: Facts) -> dict[str, str]:
    """Name of a mark -> what belongs between its lines."""
    return {
        "codec": f"{_sizes(result)}\n\n{_caption(result)}",
        "codec-speed": _speeds(result),
        "codec-lanes": _lanes(result),
        "codec-portable": _portable(result),
        **({"codec-time": _time(result)} if "speeches" in result["kinds"] else {}),
    }


def _sizes(result: Facts) -> str:
    """Compressors and the codec by text: alone / knowing the training text."""
    kinds = result["kinds"].values()
    headers = ["bits per byte", *(f"{kind['title']}, {kind['bytes']:,} bytes" for kind in kinds)]
    rows = [
        [row["label"], *(_both(kind["compressors"][i]) for kind in kinds)]
        for i, row in enumerate(next(iter(kinds))["compressors"])
    ]
    for i, name in enumerate(("underpar, not adapting", "**underpar, adapting**")):
        ours = [kind["underpar"][i] for kind in kinds]
        rows.append([name, *(f"{our['shipped_bpb']:.2f} / {our['bpb']:.3f}" for our in ours)])
    return render(headers, rows, markdown=True)


def _both(row: Facts) -> str | None:
    if row["missing"]:
        return None
    return f"{row['alone_bpb']:.3f} / {row['with_prior_bpb']:.3f}"


def _caption(result: Facts) -> str:
    artifact, machine = result["artifact"], result["machine"]
    sources = "; ".join(f"{kind['title']}: {kind['source']}" for kind in result["kinds"].values())
    lines = [
        f"First figure: nothing known beforehand. For underpar that is with the model "
        f"({artifact['file_bytes']:,} bytes) and a decoder's packed code "
        f"({artifact['code_bytes']:,} bytes) counted in; the programs of the others are not "
        f"counted. Second figure: knowing the {result['prior_bytes']:,} bytes of training text. "
        f"{sources}. `{result['command']}` on {machine['cores']} cores of an {machine['cpu']}."
    ]
    lines += [f"Not measured: {kind}, {why}." for kind, why in result["missing"].items()]
    absent = {
        row["label"]: row["missing"]
        for kind in result["kinds"].values()
        for row in kind["compressors"]
        if row["missing"]
    }
    lines += [f"Not measured: {label}, {why}." for label, why in absent.items()]
    return "\n\n".join(lines)


def _speeds(result: Facts) -> str:
    headers = ["tokens/s", "tokens", "lanes", "there", "back", "adapting: lanes", "there", "back"]
    rows = []
    for kind in result["kinds"].values():
        row = [kind["title"], f"{kind['underpar'][-1]['tokens']:,}"]
        for facts in kind["underpar"]:
            lanes = dict.fromkeys(facts["lanes"]) if facts["tokens"] else ()
            row += [", ".join(map(str, lanes)), *(_speed(facts, way) for way in WAYS)]
        rows.append(row)
    return render(headers, rows, markdown=True)


def _speed(facts: Facts, way: str) -> str | None:
    """None for a text that was stored, not coded."""
    return f"{facts[way]['tokens_per_second']:,.0f}" if facts["tokens"] else None


def _time(result: Facts) -> str:
    """Where the time goes on the held-out speeches, the dearest part first."""
    runs = [facts[way] for facts in result["kinds"]["speeches"]["underpar"] for way in WAYS]
    names = sorted(
        {name for run in runs for name in run["parts"]},
        key=lambda name: -sum(run["parts"].get(name, 0.0) for run in runs),
    )
    headers = ["seconds", "there", "back", "adapting: there", "back"]
    rows = [[name, *(f"{run['parts'].get(name, 0.0):.1f}" for run in runs)] for name in names]
    rows.append(["all", *(f"{run['seconds']:.1f}" for run in runs)])
    return render(headers, rows, markdown=True)


def _lanes(result: Facts) -> str:
    """Schedules by bits, without and with adaptation, and speed."""
    lanes = result["lanes"]
    headers = ["schedule", "tokens", "bpb", "adapting: bpb", "there", "back", "adapting: there"]
    plain, adapting = lanes["scored_exactly"]
    rows: list[list[str | None]] = [
        ["exact, scored", f"{plain['tokens']:,}", *_bpbs(plain, adapting), None, None, None, None]
    ]
    pairs = [lanes["coded_exactly"], *zip(lanes["coded"][::2], lanes["coded"][1::2])]
    for plain, adapting in pairs:
        name = f"{plain['lanes']} lanes" if plain["lanes"] else "exact, coded"
        speeds = [_speed(facts, way) for facts in (plain, adapting) for way in WAYS]
        rows.append([name, f"{plain['tokens']:,}", *_bpbs(plain, adapting), *speeds])
    return render([*headers, "back"], rows, markdown=True)


def _bpbs(plain: Facts, adapting: Facts) -> list[str]:
    return [f"{plain['bpb']:.4f}", f"{adapting['bpb']:.4f}"]


def _portable(result: Facts) -> str:
    headers = ["arithmetic", "tokens", "lanes", "bpb", "there", "back", "notes"]
    rows = []
    for facts in result["portable"]:
        name = "portable" if facts["portable"] else "this machine's"
        notes = f"{facts['notes']:,}" if "notes" in facts else None
        speeds = [_speed(facts, way) for way in WAYS]
        sizes = [f"{facts['tokens']:,}", facts["lanes"], f"{facts['bpb']:.4f}"]
        rows.append([name, *sizes, *speeds, notes])
    return render(headers, rows, markdown=True)
