"""audit: run a stranger's scorer in a jail and say what is legal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from underpar.audit.batch import Entry
    from underpar.audit.review import Audit


@dataclass(frozen=True)
class Files:
    """Where the audit is written, beside the terminal."""

    json: Path | None
    markdown: Path | None
    html: Path | None

    def write(self, found: dict[str, Any], markdown: Callable[[], str], html: Callable[[], str],
              ) -> None:  # fmt: skip
        from json import dumps

        from underpar import storage

        if self.json:
            storage.write_text(self.json, dumps(found, indent=2, allow_nan=False) + "\n")
        if self.markdown:
            storage.write_text(self.markdown, markdown())
        if self.html:
            storage.write_text(self.html, html())


def audit(
    path: Annotated[
        Path | None,
        typer.Argument(metavar="PATH", help="A submission's folder, or a script inside one."),
    ] = None,
    batch: Annotated[
        Path | None, typer.Option(metavar="LIST", help="Audit every path in a file, one a line.")
    ] = None,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Write JSON.")] = None,
    markdown: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a review to paste.")
    ] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a page.")] = None,
    trust: Annotated[
        bool, typer.Option("--trust", help="Run without a jail; for code that you have read.")
    ] = False,
    seconds: Annotated[float, typer.Option(help="For all runs of a submission.", min=5.0)] = 300.0,
) -> None:
    """Run a submission's own scorer, locked in, and judge it by the four conditions.

    Exit code 0: clean; 1: violated; 2: usage; 3: no verdict.
    """
    if (path is None) == (batch is None):
        raise typer.BadParameter("give one of PATH and --batch LIST")
    files = Files(json, markdown, html)
    with _session(files):
        from underpar.audit import audit as whole

        def one(target: Path) -> Audit:
            return whole.audit(target, trust=trust, seconds=seconds)

        code = _batch(batch, one, files) if batch else _single(path or Path(), one, files)
    raise typer.Exit(code)


@contextmanager
def _session(files: Files) -> Iterator[None]:
    """Progress on stderr; a mistake of the user's is one line, exit code 2, and in the JSON.

    A bug of ours keeps its traceback but ends with 3: the code 1 would speak of the submission.
    """
    from underpar.audit.review import EXIT, USAGE
    from underpar.cli import terminal
    from underpar.errors import UnderparError
    from underpar.progress import use

    try:
        with use(terminal.sink()):
            yield
    except UnderparError as error:
        typer.echo(f"underpar: {error}", err=True)
        _write_failure(files, str(error), USAGE)
        raise typer.Exit(USAGE) from error
    except Exception as error:
        from traceback import format_exc

        typer.echo(format_exc(), err=True)
        code = EXIT["no verdict"]
        _write_failure(files, f"{type(error).__name__}: {error}", code)
        raise typer.Exit(code) from error


def _write_failure(files: Files, why: str, code: int) -> None:
    """The JSON of an audit that did not take place; that it cannot be written is no news then."""
    from contextlib import suppress

    from underpar.audit.review import not_exercised
    from underpar.errors import UnderparError

    conditions: dict[str, dict[str, object]] = {
        c.name: {"verdict": c.verdict, "witness": "", "why": c.why, "evidence": {}}
        for c in not_exercised(why)
    }
    found = {"error": why, "exit_code": code, "verdict": "no verdict", "conditions": conditions,
             "findings": [], "claims": []}  # fmt: skip
    with suppress(UnderparError):
        Files(files.json, None, None).write(found, str, str)


def _single(path: Path, one: Callable[[Path], Audit], files: Files) -> int:
    from underpar.audit.markdown import markdown
    from underpar.audit.page import page

    found = one(path)
    files.write(found.to_json(), lambda: markdown(found), lambda: page(found))
    typer.echo(found.text(), nl=False)
    return found.exit_code


def _batch(file: Path, one: Callable[[Path], Audit], files: Files) -> int:
    """All of the list; what is done is written and shown even if Ctrl-C ends it early."""
    from underpar import progress
    from underpar.audit import batch

    entries: list[Entry] = []
    names = batch.paths(file)
    try:
        for entry in batch.audits(names, one):
            entries.append(entry)
            verdict = entry.audit.verdict if entry.audit else "unreadable"
            progress.current().line(f"{len(entries)}/{len(names)} {verdict}: {entry.row()[0]}")
            _write(entries, Files(files.json, None, None))
    finally:
        _write(entries, files)
        typer.echo(batch.text(entries), nl=False)
    return batch.exit_code(entries)


def _write(entries: list[Entry], files: Files) -> None:
    from underpar.audit import batch, markdown, page

    found = {
        "exit_code": batch.exit_code(entries),
        "audits": [entry.to_json() for entry in entries],
    }
    rows = batch.rows(entries)
    files.write(found, lambda: markdown.summary(rows), lambda: page.summary(rows))
