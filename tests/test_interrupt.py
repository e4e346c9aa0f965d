"""Signals become a wish; handlers come back; the second signal acts as before."""

import signal
import threading

import pytest

from underpar.train.interrupt import SIGNALS, interruptible


@pytest.fixture(autouse=True)
def _ctrl_c_is_heard():
    """As in a terminal, also where pytest was started in the background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_a_wish(number):
    before = signal.getsignal(number)
    with interruptible() as wish:
        assert not wish.stop
        signal.raise_signal(number)
        assert wish.stop
    assert signal.getsignal(number) == before


def test_the_second_one_acts_at_once():
    with interruptible() as wish:
        signal.raise_signal(signal.SIGINT)
        assert wish.stop
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_wishes_do_not_outlive_their_block():
    with interruptible():
        signal.raise_signal(signal.SIGTERM)
    with interruptible() as wish:
        assert not wish.stop


def test_other_threads_leave_handlers_alone():
    seen = []

    def work():
        with interruptible() as wish:
            seen.append((signal.getsignal(signal.SIGTERM), wish.stop))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(before, False)]
