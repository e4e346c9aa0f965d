"""Ctrl-C and SIGTERM as a wish: finish the step, write a checkpoint, stop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Wish:
    """Whether somebody asked this process to stop."""

    stop = False


@contextmanager
def interruptible() -> Iterator[Wish]:
    """Signals in the block set ``stop``; a second one acts as it did before, i.e. kills at once.

    Python delivers signals to the main thread only, so elsewhere the block changes nothing.
    """
    wish = Wish()
    if threading.current_thread() is not threading.main_thread():
        yield wish
        return
    before = {number: signal.getsignal(number) or signal.SIG_DFL for number in SIGNALS}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def remember(number: int, frame: object) -> None:
        wish.stop = True
        restore()

    for number in SIGNALS:
        signal.signal(number, remember)
    try:
        yield wish
    finally:
        restore()
