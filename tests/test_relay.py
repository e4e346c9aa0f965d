"""A child's progress reaches the parent's sink; what else the child says reaches the parent."""

from __future__ import annotations

import io

import pytest

from underpar.codec import relay
from underpar.codec.relay import Relay, forward
from underpar.progress import Progress, use


class Updates(Progress):
    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.seen: list[tuple[object, ...]] = []

    def update(self, *where: object) -> None:  # type: ignore[override]
        self.seen.append(where)


def test_there_and_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "EVERY", 0.0)
    pipe = io.StringIO()
    child = Relay(stream=pipe)
    child.update("decompress", 3, 10, '2.31 bits a token\n"', 7.5, "tokens")
    child.line("a word of its own")
    child.update("packing", 2, -1)
    pipe.write('["no update\n\n12\n')
    pipe.seek(0)
    with use(Updates()) as sink:
        assert forward(pipe) == 'a word of its own\n["no update\n\n12\n'
    assert isinstance(sink, Updates)
    assert sink.seen == [
        ("decompress", 3.0, 10.0, '2.31 bits a token\n"', 7.5, "tokens"),
        ("packing", 2.0, -1.0, "", -1.0, ""),
    ]


def test_a_child_does_not_flood_the_pipe() -> None:
    pipe = io.StringIO()
    child = Relay(stream=pipe)
    for i in range(1000):
        child.update("decompress", i, 1000)
    assert len(pipe.getvalue().splitlines()) <= 1
