"""Messages say what failed, what was got, what was wanted, what to do."""

from __future__ import annotations

import pickle

import pytest

from underpar import errors
from underpar.errors import DataError, UnderparError


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (DataError("shard x"), "shard x"),
        (DataError("shard x", got=3), "shard x: got 3"),
        (DataError("shard x", wanted="4"), "shard x: wanted 4"),
        (DataError("shard x", got=0, wanted="4"), "shard x: got 0, wanted 4"),
        (DataError("shard x", got=3, do="Build it again."), "shard x: got 3. Build it again."),
        (DataError("shard x", do="Build it again."), "shard x. Build it again."),
    ],
)
def test_the_four_parts_make_one_sentence(error: UnderparError, text: str) -> None:
    assert str(error) == text


def test_the_parts_stay_readable_to_programs() -> None:
    error = DataError("shard x", got=3, wanted=4, do="Build it again.")
    assert (error.what, error.got, error.wanted, error.do) == ("shard x", 3, 4, "Build it again.")


def test_an_error_keeps_its_message_across_processes() -> None:
    """Worker processes send their exceptions home by pickling them."""
    error = DataError("shard x", got=3, wanted=4, do="Build it again.")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is DataError
    assert str(again) == str(error)
    assert again.got == 3


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    classes = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, UnderparError)
    }
    for name in classes:
        assert name in (errors.__doc__ or "")
    assert all(
        getattr(errors, name).__base__ is UnderparError for name in classes - {"UnderparError"}
    )
