"""The ``underpar`` command: subcommands, and how failures look to a person."""

from __future__ import annotations

import errno
import sys

import typer

from underpar import __version__
from underpar.cli import audit, data, recipes, review, run, submit, text
from underpar.errors import UnderparError

app = typer.Typer(
    name="underpar",
    help="Train a language model under a byte budget, and prove its score.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("demo")(run.demo)
app.command("train")(run.train)
app.command("pack")(run.pack)
app.command("score")(run.score)
app.command("compress")(text.compress)
app.command("decompress")(text.decompress)
app.command("info")(text.info)
app.command("prove")(text.prove)
app.command("sample")(text.sample)
app.command("report")(run.report)
app.command("compare", cls=review.Lists)(review.compare)
app.command("leaderboard")(review.leaderboard)
app.command("submit")(submit.submit)
app.command("seeds", cls=submit.Lists)(submit.seeds)
app.command("audit")(audit.audit)
app.add_typer(data.app, name="data")
app.add_typer(recipes.app, name="recipes")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"underpar {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    pass


def main() -> None:
    """Run the command line. A user's mistake is one line on stderr and exit code 1.

    Ctrl-C is 130 and a closed pipe 1; typer sees to both.
    """
    try:
        app()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except UnderparError as error:
        code = _failed(str(error))
    except OSError as error:  # files that matter go through storage; this is a line for a log
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        code = _failed(f"cannot write the log: {error.strerror}")
    if "torch" in sys.modules:  # a process group can only be left where there may be one
        from underpar import dist

        dist.leave(code)
    sys.exit(code)


def _failed(why: str) -> int:
    print(f"underpar: {why}", file=sys.stderr)
    return 1
