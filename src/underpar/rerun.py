"""What can be done with a run folder besides making one: pack again, score again, compare, tidy."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import count
from pathlib import Path

from underpar import dist, progress, storage
from underpar.artifact.load import load
from underpar.codec.prove import prove
from underpar.codec.text import Options
from underpar.data.build import documents_of, open_dataset
from underpar.data.corpus import split
from underpar.errors import UnderparError
from underpar.pipeline import prepare, save, write_quantized
from underpar.recipe.load import from_json, override, resolve
from underpar.recipe.plain import digest, to_json
from underpar.recipe.schema import Recipe, TrainSpec
from underpar.report.compressors import Row, measure
from underpar.report.curves import load_losses, save_losses
from underpar.report.page import write_report
from underpar.report.record import DataFacts, Record
from underpar.score.file import score
from underpar.score.scorer import Result
from underpar.stages import STAGES, How, planned


def repack(
    out: Path,
    *,
    code_bytes: Callable[[Recipe], Callable[[], int]],
    data: Path | None = None,
    tokenizer: Path | None = None,
    overrides: Sequence[str] = (),
) -> Record:
    """Quantize and pack ``out/float.upar`` again; the record keeps only what is still true.

    code_bytes: counts the program of a recipe (``ship.counting``). data: shards to calibrate on;
    None: the recipe's own corpus. overrides: quant.* and budget.*.
    """
    recipe = override(resolve(str(out / "recipe.json")), overrides, ("quant", "budget"))
    dataset = prepare(recipe, out, data, tokenizer)
    earlier = Record.read(out / "record.json")
    fresh = Record.start(recipe, command=earlier.command, train=earlier.train, data=earlier.data)
    if "float" in earlier.stages:
        fresh = fresh.with_stage("float", earlier.stages["float"])
    model = load(out / "float.upar", dist.device()).model
    record = write_quantized(model, recipe, dataset, out, fresh, code_bytes(recipe))
    storage.write_text(out / "recipe.json", json.dumps(to_json(recipe), indent=1) + "\n")
    return record


def rescore(
    file: Path, data: Path, stage: How, *, tokenizer: Path | None, overrides: Sequence[str] = ()
) -> Result:
    """Score an artifact from its path alone. overrides: score.*.

    The record beside it takes the score in when it is of this very file and of the run's own
    data, and nothing was overridden.
    """
    loaded = load(file)
    length = loaded.model.spec.seq_len
    plain = TrainSpec(batch_tokens=length, micro_tokens=length)
    recipe = Recipe(model=loaded.model.spec, score=loaded.score, train=plain)
    spec = override(recipe, overrides, ("score",)).score
    dataset = open_dataset(data, tokenizer)
    result = score(file, dataset.validation(), stage, overrides=spec)
    nll = result.nll  # of all ranks, so all of them ask
    name = next((s.name for s in STAGES if (s.file, s.how) == (file.name, stage)), None)
    beside = file.parent / "record.json"
    if name and not overrides and beside.exists():
        record = Record.read(beside)
        same_run = record.recipe_digest == loaded.header["recipe"]
        same_data = record.data == DataFacts.of(dataset)
        shipped = record.artifact is not None and record.artifact.sha256 == loaded.sha256
        if same_run and same_data and (shipped or name == "float"):
            save(record.with_stage(name, result.score), file.parent)
            if dist.is_main():
                save_losses(file.parent, name, nll)
    return result


def compare(record: Record, out: Path, cache: Path) -> tuple[Record, list[Row]]:
    """What ordinary compressors reach on the held-out documents; kept in the record, too."""
    recipe = from_json(record.recipe)
    parts = split(documents_of(recipe.data.corpus), recipe.data.held_out)
    prior, text = ("\n\n".join(d.text for d in part).encode() for part in parts)
    progress.current().line(f"compressors on the same {len(text):,} bytes")
    rows = measure(text, prior, cache=cache)
    return save(record.with_diagnostic("compressors", [asdict(r) for r in rows]), out), rows


def proven(record: Record, out: Path, *, data: Path | None = None) -> Record:
    """The run's model and held-out text through the codec; the proof is printed and kept.

    A task for one process: a distributed run leaves it to ``underpar prove``.
    """
    if dist.world_size() > 1:
        return record
    dataset = prepare(from_json(record.recipe), out, data, None)
    proof = prove(out / "model.upar", dataset.validation(), Options())
    for line in proof.lines():
        progress.current().line(line)
    return save(record.with_diagnostic("proof", proof.to_json()), out)


def report(out: Path, *, data: Path | None = None, tokenizer: Path | None = None) -> Path:
    """Write ``out/report.html`` again from the files of the run."""
    record = Record.read(out / "record.json")
    dataset = prepare(from_json(record.recipe), out, data, tokenizer)
    if dist.is_main():
        write_report(
            out,
            nll=load_losses(out),
            validation=dataset.validation(),
            tokenizer=dataset.tokenizer,
            data=dataset.folder,
        )
    return out / "report.html"


def unfinished(out: Path, recipe: Recipe) -> bool:
    """Whether ``out`` holds a run of this very recipe that stopped before its last score."""
    try:
        same = digest(resolve(str(out / "recipe.json"))) == digest(recipe)
        record = Record.read(out / "record.json") if (out / "record.json").exists() else None
    except UnderparError:
        return False
    return same and (
        record is None
        or not {stage.name for stage in planned(recipe.score.ttt)} <= set(record.stages)
    )


def move_aside(out: Path) -> Path | None:
    """Rename a folder that holds a run to the next free out-1, out-2, ...; nothing is deleted."""
    if not (out / "recipe.json").exists():
        return None
    kept = next(p for i in count(1) if not (p := out.with_name(f"{out.name}-{i}")).exists())
    out.rename(kept)
    return kept
