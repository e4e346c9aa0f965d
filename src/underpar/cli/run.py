"""demo, train, pack, score: the commands that run the line or one stage of it."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from underpar.progress import Progress
    from underpar.recipe.schema import Recipe

Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a recipe key; may be repeated."),
]
Seed = Annotated[int | None, typer.Option(help="Seed; default: the recipe's.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on where an earlier run stopped.")]
Tokenizer = Annotated[
    Path | None, typer.Option(help="SentencePiece model; default: found beside the shards.")
]


class Stage(StrEnum):
    """How to score: windows side by side, overlapping, or adapting to what was scored."""

    plain = "plain"
    sliding = "sliding"
    ttt = "ttt"


def command_line() -> str:
    """The command as it was typed, for the record."""
    return shlex.join(["underpar", *sys.argv[1:]])


@contextmanager
def session(
    folder: Path | None = None, *, fresh: bool = False, live: bool = True
) -> Iterator[Progress]:
    """Processes joined and progress shown, by rank 0 alone, for the length of a command.

    folder: where log.txt and metrics.jsonl go. fresh: an earlier run in it is moved aside first.
    live: draw, where stderr is a terminal.
    """
    from underpar import dist, rerun
    from underpar.cli import terminal
    from underpar.progress import use

    with dist.processes():
        main = dist.is_main()
        kept = rerun.move_aside(folder) if folder and fresh and main else None
        shown = terminal.sink(folder if main else None, quiet=not main, live=live)
        with use(shown) as sink:
            if kept:
                sink.line(f"the earlier run in {folder} is now {kept}")
            yield sink


def counting(recipe: Recipe) -> Callable[[], int]:
    """Code bytes of a recipe, counted beside the run on rank 0 and kept in the user's cache."""
    from underpar import dist, ship

    if not dist.is_main():
        return lambda: 0
    environment = dist.environment()
    home = Path(environment.get("XDG_CACHE_HOME") or Path(environment.get("HOME", ".")) / ".cache")
    return ship.counting(recipe, home / "underpar" / "code_bytes.json")


def demo(
    out: Annotated[Path, typer.Option(help="Run folder.")] = Path("runs/demo"),
    seed: Seed = None,
    resume: Resume = False,
    set_: Set = None,
) -> None:
    """Train a small model on two centuries of speeches, pack it, score it, compare it."""
    from underpar import pipeline, rerun
    from underpar.progress import task
    from underpar.recipe.load import resolve
    from underpar.report.tables import comparison_table, stage_table

    recipe = resolve("demo", set_ or [], seed)
    resume = resume or rerun.unfinished(out, recipe)
    with session(out, fresh=not resume) as sink, task("demo", 4) as step:
        step("train and score")
        code = counting(recipe)
        record = pipeline.run(recipe, out, code_bytes=code, resume=resume, command=command_line())
        sink.line("\n" + stage_table(record) + "\n")
        step("compressors on the same text")
        record, rows = rerun.compare(record, out, out.parent / "data" / "compressors.json")
        sink.line(comparison_table(record, rows))
        step("the proof")
        sink.line("\nthe proof: the same text through the codec, and back in another process")
        rerun.proven(record, out)
        step("the report")
        sink.line(f"the report, for a browser: {rerun.report(out)}")
        sink.line(f"the model is {out / 'model.upar'}, the record {out / 'record.json'}")


def train(
    recipe: Annotated[str, typer.Argument(metavar="PRESET|FILE.toml", help="What to run.")],
    data: Annotated[Path | None, typer.Option(help="Folder of shards.")] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; default: runs/RECIPE.")] = None,
    seed: Seed = None,
    resume: Resume = False,
    tokenizer: Tokenizer = None,
    set_: Set = None,
) -> None:
    """Run the whole line: train, quantize, pack, score. Works under torchrun as it is."""
    from underpar import pipeline, rerun
    from underpar.recipe.load import resolve
    from underpar.report.tables import stage_table

    resolved = resolve(recipe, set_ or [], seed)
    folder = out or Path("runs") / resolved.name
    with session(folder, fresh=not resume) as sink:
        record = pipeline.run(
            resolved,
            folder,
            code_bytes=counting(resolved),
            data=data,
            tokenizer=tokenizer,
            resume=resume,
            command=command_line(),
        )
        sink.line("\n" + stage_table(record))
        page = rerun.report(folder, data=data, tokenizer=tokenizer)
        sink.line(f"\nthe report, for a browser: {page}")


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder with a record.json.")],
    data: Annotated[
        Path | None, typer.Option(help="Its shards; default: the recipe's corpus.")
    ] = None,
    tokenizer: Tokenizer = None,
) -> None:
    """Write a run's report.html again: curves, bytes, losses, the text by its surprises."""
    from underpar import rerun
    from underpar.errors import DataError

    if not (run / "record.json").exists():
        raise DataError(f"run folder {run}", got="no record.json", do="Train it first.")
    with session() as sink:
        sink.line(f"the report, for a browser: {rerun.report(run, data=data, tokenizer=tokenizer)}")


def pack(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder with a float.upar.")],
    data: Annotated[
        Path | None, typer.Option(help="Shards to calibrate on; default: the recipe's corpus.")
    ] = None,
    tokenizer: Tokenizer = None,
    set_: Set = None,
) -> None:
    """Quantize and pack a run's float.upar again, and count the bytes."""
    from underpar import rerun
    from underpar.errors import DataError

    if not (run / "float.upar").exists():  # said before a mistyped name becomes a folder
        raise DataError(f"run folder {run}", got="no float.upar", do="Train it first, or check it.")
    with session(run):
        rerun.repack(run, code_bytes=counting, data=data, tokenizer=tokenizer, overrides=set_ or [])


def score(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .upar artifact.")],
    data: Annotated[Path, typer.Option(help="Folder with validation shards.")],
    stage: Annotated[Stage, typer.Option(help="How to score.")] = Stage.sliding,
    json: Annotated[Path | None, typer.Option(help="Write the score as JSON, too.")] = None,
    tokenizer: Tokenizer = None,
    set_: Set = None,
) -> None:
    """Score an artifact on a validation set, from the file alone."""
    from json import dumps

    from underpar import dist, rerun, storage

    with session() as sink:
        result = rerun.rescore(file, data, stage.value, tokenizer=tokenizer, overrides=set_ or [])
        score = result.score
        sink.line(
            f"{stage.value}: {score}  ({score.nats:.3f} nats, {score.tokens:,} tokens, "
            f"{score.bytes:,} bytes, coverage {score.coverage:.6g}, {score.seconds:.1f} s)"
        )
        if json and dist.is_main():
            storage.write_text(json, dumps({"stage": stage.value, **score.to_json()}) + "\n")
