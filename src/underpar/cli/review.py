"""compare, leaderboard: what runs show, taken together."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from underpar.cli.terminal import tell
from underpar.stages import NAMES

#: The stages of a record.
Stage = StrEnum("Stage", list(NAMES))  # type: ignore[misc]
LAST = Stage(NAMES[-1])


class Unit(StrEnum):
    """Of plain numbers."""

    bpb = "bpb"
    nats = "nats"


class Lists(TyperCommand):
    """Lets one --against take all runs up to the next option: ``--against B1 B2 B3``.

    An option takes one value otherwise, and B2 would silently count among the runs before it.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, spread(args, "--against"))


def spread(arguments: list[str], option: str) -> list[str]:
    """The option repeated before each of its values: 'a --x b c --y' is 'a --x b --x c --y'."""
    done: list[str] = []
    inside = False  # among values of the option, the first of which is already preceded by it
    for i, argument in enumerate(arguments):
        if argument.startswith("-"):
            inside = argument == option or argument.startswith(f"{option}=")
        elif inside and arguments[i - 1] != option:
            done.append(option)
        done.append(argument)
    return done


def compare(
    ours: Annotated[
        list[str],
        typer.Argument(metavar="A", help="Runs (folder or record.json), or plain numbers."),
    ],
    against: Annotated[
        list[str], typer.Option(metavar="B...", help="What they are to beat; the same kinds.")
    ],
    delta: Annotated[float, typer.Option(help="Better by more than this, in nats/token.")] = 0.005,
    alpha: Annotated[float, typer.Option(help="Shown when p is below.")] = 0.01,
    stage: Annotated[Stage, typer.Option(help="Which score of the records.")] = LAST,
    unit: Annotated[Unit, typer.Option(help="Unit of plain numbers.")] = Unit.bpb,
    tokens: Annotated[
        int | None, typer.Option(help="Tokens scored; for plain numbers.", min=1)
    ] = None,
    n_bytes: Annotated[
        int | None, typer.Option("--bytes", help="Bytes scored; for plain numbers.", min=1)
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write the comparison as JSON, too.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown.")] = False,
) -> None:
    """Are the runs A better than B by more than seeds explain? Welch's test, both units.

    underpar compare runs/a1 runs/a2 runs/a3 --against runs/b1 runs/b2 runs/b3
    """
    from json import dumps

    from underpar import storage
    from underpar.errors import DataError
    from underpar.report.compare import samples, summary
    from underpar.report.stats import BPB, NATS, Comparison, Text

    if not 0 < alpha < 1:
        raise DataError("--alpha", got=alpha, wanted="a probability between 0 and 1")
    if (tokens is None) != (n_bytes is None):
        raise DataError("size of the text", got="one of --tokens and --bytes", wanted="both")
    stated = Text(tokens, n_bytes) if tokens is not None and n_bytes is not None else None
    given = BPB if unit is Unit.bpb else NATS
    a, b, text = samples(ours, against, stage=stage.value, unit=given, text=stated)
    comparison = Comparison(a, b, delta)
    tell(summary(comparison, text, alpha, markdown=markdown))
    if json:
        scales = [comparison, *([comparison.to(BPB, text)] if text else [])]
        result = {"ours": ours, "against": against, "stage": stage.value}
        found = {scale.unit: scale.to_json(alpha) for scale in scales}
        storage.write_text(json, dumps({**result, **found}, indent=2, allow_nan=False) + "\n")


def leaderboard(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder with run folders below.")],
    stage: Annotated[
        Stage | None, typer.Option(help="Rank by this; default: each run's best shipped score.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown.")] = False,
) -> None:
    """A table of all runs below a folder, from their records, best first."""
    from json import dumps

    from underpar.errors import DataError
    from underpar.report.leaderboard import leaderboard

    if json and markdown:
        raise DataError("leaderboard", got="--json and --markdown", wanted="one of them")
    board = leaderboard(folder, stage.value if stage else None)
    if json:
        typer.echo(dumps(board.to_json(), indent=2))
    else:
        tell(board.render(markdown=markdown))
