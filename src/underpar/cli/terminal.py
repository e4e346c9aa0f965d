"""What a command shows on a terminal: bars that move, lines above them, tables in colour.

Where there is no terminal, or a dumb one, everything is plain text, the same to the last byte. rich
draws, and is imported (``screen``) when there is something to draw: ``--help`` does without.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from underpar.progress import Progress

if TYPE_CHECKING:
    from underpar.cli.screen import Screen

#: What a table has under its head, as ``report.tables`` writes it.
CROSSING = "─┼─"


def sink(folder: Path | None = None, *, quiet: bool = False, live: bool = True) -> Progress:
    """Of a command: drawn where stderr is a terminal, printed elsewhere.

    folder, quiet: as of ``Progress``. live: False prints on a terminal, too.
    """
    if live and not quiet and sys.stderr.isatty():
        return Terminal(folder)
    return Progress(folder, quiet=quiet)


def tell(text: str) -> None:
    """Print a result on stdout, its tables in colour if that is a terminal."""
    if sys.stdout.isatty() and CROSSING in text:
        from underpar.cli.screen import Screen

        Screen(sys.stdout).print(text)
    else:
        typer.echo(text)


class Terminal(Progress):
    """Draws. Nothing is drawn before the first update, or after the end."""

    _screen: Screen | None = None
    _over = False

    def show(self, text: str) -> None:
        screen = self._drawn() if CROSSING in text else self._screen
        if screen:
            screen.print(text)
        else:
            super().show(text)

    def update(
        self, task: str, done: float, total: float, note: str = "", left: float = -1, unit: str = ""
    ) -> None:
        if screen := self._drawn():
            screen.put(task, done, total, note, left, unit)
        else:
            super().update(task, done, total, note, left, unit)

    def begin(self, task: str, step: int, steps: int, note: str) -> None:
        super().begin(task, step, steps, note)
        if screen := self._drawn():
            screen.clear()

    def close(self) -> None:
        self._over = True
        try:
            if self._screen:
                self._screen.close()
        finally:
            self._screen = None
            super().close()

    def _drawn(self) -> Screen | None:
        """The screen, if this terminal can be drawn on."""
        if self._screen is None and not self._over:
            from underpar.cli.screen import Screen

            screen = Screen(self._stream, self.around)
            self._screen = screen if screen.can_draw else None
            self._over = not screen.can_draw
        return self._screen
