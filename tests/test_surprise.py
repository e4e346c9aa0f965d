"""Coloured text: the whole text, nothing but the text, and tints that are the token's bits."""

from __future__ import annotations

import re
from html import unescape

import numpy as np
import pytest

from tests.test_curves import stream
from underpar.bits import LN2
from underpar.data.tokenizer import ByteTokenizer
from underpar.data.validation import ValidationSet
from underpar.report.surprise import EDGES, MOST_TOKENS, Excerpt, excerpts, legend, level

TAG = re.compile(r"</?i[^>]*>")


def shown(
    data: ValidationSet, bits: list[float], room: int = 10**6, most: int = 10
) -> list[Excerpt]:
    nll = np.array(bits, dtype=np.float32) * np.float32(LN2)
    return excerpts(nll, data, ByteTokenizer(), documents=most, room=room)


@pytest.mark.parametrize(
    "text", ["plain", "<script>a & b</script>", "naïve 日本 \U0001f600", " \n x"]
)
def test_the_text_is_the_document(text: str) -> None:
    data = stream(text, "other")
    one, two = shown(data, [float(i % 20) for i in range(data.n_targets)])
    assert unescape(TAG.sub("", one.html)) == text
    assert TAG.sub("", two.html) == "other"
    assert one.tokens == one.of == len(text.encode())
    assert set(TAG.findall(one.html)) <= {"</i>", *(f"<i class=t{i}>" for i in range(1, 8))}


def test_neighbours_of_one_tint_share_a_tag() -> None:
    (one,) = shown(stream("abcdef"), [0.1, 5, 5.5, 5, 20, np.nan])
    assert one.html == "a<i class=t3>bcd</i><i class=t7>e</i>f"


def test_a_character_of_several_tokens_has_their_mean() -> None:
    (one,) = shown(stream("aé"), [0, 2, 12])
    assert one.html == "a<i class=t4>é</i>"  # 7 bits


def test_levels_begin_at_their_edges() -> None:
    assert [level(edge) for edge in EDGES] == list(range(1, 8))
    assert [level(edge - 0.01) for edge in EDGES] == list(range(7))
    assert legend().count("<li>") == 8


def test_excerpts_keep_within_tokens_and_room() -> None:
    data = stream("x" * 5000, "&<" * 2000)
    one, _ = shown(data, [0.0] * 5001 + [float(20 * (i % 2)) for i in range(4000)])
    assert one.tokens == MOST_TOKENS
    assert one.of == 5000
    for part in shown(data, [20.0 * (i % 2) for i in range(data.n_targets)], room=4000):
        assert 100 < part.tokens < 500
        assert len(part.html.encode()) <= 2000
    assert shown(data, [0.0] * data.n_targets, room=0)[0].html == ""


def test_of_many_documents_some_are_shown() -> None:
    data = stream(*(f"text {i}" for i in range(50)))
    found = shown(data, [1.0] * data.n_targets, most=5)
    assert [part.document for part in found] == [0, 12, 24, 37, 49]
    assert found[-1].opening == "text 49"
