"""submit, seeds: from runs to what is handed in, and the runs that it takes."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from underpar.cli.review import spread
from underpar.cli.run import Set, Tokenizer, session, train
from underpar.cli.terminal import sink, tell
from underpar.progress import Progress, task, use

if TYPE_CHECKING:
    from underpar.recipe.schema import Recipe


class Found(StrEnum):
    """What a seed's folder holds when its turn comes."""

    nothing = "nothing"
    part = "part of the run"
    all = "the run"


class Lists(TyperCommand):
    """Lets one --seeds take all numbers up to the next option: ``--seeds 0 42 1234``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, spread(args, "--seeds"))


def submit(
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="New folder to write.")],
    runs: Annotated[
        list[Path] | None, typer.Argument(metavar="RUN", help="Finished runs, one a seed.")
    ] = None,
    track: Annotated[
        str | None,
        typer.Option(
            help="10min_16mb, non-record-16mb or another non-record-*; default: by the hardware."
        ),
    ] = None,
    meta: Annotated[
        Path | None, typer.Option(help="submit.toml: author, name, lineage; see docs/submit.md.")
    ] = None,
    proof: Annotated[
        bool, typer.Option("--proof", help="Code and decode the text of runs without a proof.")
    ] = False,
    data: Annotated[
        Path | None, typer.Option(help="Shards to prove on; default: the recipe's corpus.")
    ] = None,
    bundle_only: Annotated[
        str | None,
        typer.Option(metavar="PRESET|FILE.toml", help="Write just the code of a recipe."),
    ] = None,
) -> None:
    """Write a folder to hand in: README, submission.json, code, logs; refused unless it adds up.

    underpar submit runs/demo/seed0 runs/demo/seed42 -o records/2026-04-06_Demo --meta submit.toml
    """
    from underpar import ship
    from underpar.errors import DataError
    from underpar.submit import folder
    from underpar.submit.meta import EXAMPLE, read_meta

    if bool(runs) == bool(bundle_only):
        got = "both" if runs else "neither"
        raise DataError("submit", got=got, wanted="run folders, or --bundle-only PRESET|FILE.toml")
    if bundle_only:
        from underpar.recipe.load import resolve

        with use(sink()):
            sizes = folder.bundle_only(resolve(bundle_only), out, write_code=ship.write)
        for name, size in sizes.items():
            typer.echo(f"{size:>9,} bytes  {out / name}")
        return
    about = read_meta(meta) if meta else None
    if proof:
        _prove(runs or [], data)
    with use(sink()):
        seeds = folder.submit(runs or [], out, write_code=ship.write, track=track, meta=about)
    tell(seeds.table())
    typer.echo(f"\n{seeds.words()}\n")
    if about is None:
        example = EXAMPLE.replace("\n", "\n    ").rstrip()
        typer.echo(
            f"author and github_id are empty: give --meta submit.toml, like\n\n    {example}\n"
        )
    typer.echo(f"{out}: {', '.join(sorted(path.name for path in out.iterdir()))}")


def seeds(
    recipe: Annotated[str, typer.Argument(metavar="PRESET|FILE.toml", help="What to run.")],
    seeds: Annotated[list[int], typer.Option(metavar="N...", help="Seeds, e.g. 0 42 1234.")],
    data: Annotated[Path | None, typer.Option(help="Folder of shards.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run folders; default: runs/RECIPE.")
    ] = None,
    tokenizer: Tokenizer = None,
    set_: Set = None,
) -> None:
    """Run a recipe under several seeds; the same command goes on where it stopped.

    Runs lie in OUT/seed0, OUT/seed42, ...; finished ones are skipped, interrupted ones resumed.
    Works under torchrun as it is.
    """
    from underpar import dist
    from underpar.errors import RecipeError
    from underpar.recipe.load import resolve
    from underpar.submit.runs import read_runs
    from underpar.submit.seeds import Seeds

    planned = [resolve(recipe, set_ or [], seed) for seed in seeds]
    if len(set(seeds)) < len(seeds):
        raise RecipeError("--seeds", got=" ".join(map(str, seeds)), wanted="each seed once")
    base = out or Path("runs") / planned[0].name
    if (base / "recipe.json").exists():
        raise RecipeError(
            f"seeds in {base}",
            got="a run folder",
            wanted="a folder of run folders",
            do="Give --out.",
        )
    around = use(Progress(quiet=True))  # what it is told of stays around the sink of every run
    with dist.processes(), around, task("seeds", len(planned)) as step:
        for run in planned:
            step(f"seed {run.seed}")
            _one(run, recipe, _folder(base, run), data, tokenizer, set_)
        if dist.is_main():
            table = Seeds.of(read_runs([_folder(base, run) for run in planned]))
            tell(f"\n{table.table()}\n\n{table.words()}")


def _folder(base: Path, recipe: Recipe) -> Path:
    return base / f"seed{recipe.seed}"


def _one(
    recipe: Recipe,
    name: str,
    folder: Path,
    data: Path | None,
    tokenizer: Path | None,
    overrides: list[str] | None,
) -> None:
    """Train a seed unless it is done. Collective: rank 0, who writes, looks."""
    from underpar import dist

    found = dist.broadcast(_found(folder, recipe) if dist.is_main() else Found.nothing)
    if found is Found.all:
        if dist.is_main():
            typer.echo(f"seed {recipe.seed}: done already, in {folder}", err=True)
        return
    resume = found is Found.part
    if dist.is_main():
        typer.echo(f"seed {recipe.seed}: {'goes on' if resume else 'starts'} in {folder}", err=True)
    train(
        name,
        data=data,
        out=folder,
        seed=recipe.seed,
        resume=resume,
        tokenizer=tokenizer,
        set_=overrides,
    )


def _found(folder: Path, recipe: Recipe) -> Found:
    from underpar import rerun
    from underpar.errors import UnderparError
    from underpar.submit.runs import Run

    if rerun.unfinished(folder, recipe):
        return Found.part
    try:
        return Found.all if Run.read(folder).recipe == recipe else Found.nothing
    except UnderparError:
        return Found.nothing


def _prove(runs: list[Path], data: Path | None) -> None:
    """A proof into the record of every run that has none."""
    from underpar import rerun
    from underpar.submit.runs import read_runs

    with session() as sink:
        for run in read_runs(runs):
            if "proof" not in run.record.diagnostics:
                sink.line(f"seed {run.seed}: the text through the codec, and back elsewhere")
                rerun.proven(run.record, run.folder, data=data)
