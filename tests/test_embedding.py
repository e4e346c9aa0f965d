import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from underpar.model.embedding import BigramHash, SmearGate, bigram_rows
from underpar.recipe.schema import ModelSpec

GOLDEN = json.loads((Path(__file__).parent / "data/golden/schedule.json").read_text())
IDS = st.lists(st.integers(0, 65_535), min_size=1, max_size=9)


@pytest.mark.parametrize("case", GOLDEN["bigram_hash"], ids=lambda case: str(case["buckets"]))
def test_rows_match_the_published_hash(case):
    assert bigram_rows(torch.tensor([case["ids"]]), case["buckets"]).tolist() == [case["rows"]]


def signed32(x):
    return (x + 2**31) % 2**32 - 2**31


@given(IDS, st.integers(2, 20_000))
def test_rows_equal_wrapping_products_in_plain_integers(ids, buckets):
    rows = bigram_rows(torch.tensor([ids], dtype=torch.int32), buckets)[0].tolist()
    assert rows[0] == buckets - 1
    for before, now, row in zip(ids, ids[1:], rows[1:]):
        mixed = signed32(36_313 * now) ^ signed32(27_191 * before)
        assert row == mixed % (buckets - 1)


@given(IDS, st.integers(0, 8))
def test_rows_of_a_continuation_are_those_of_the_whole(ids, cut):
    cut = min(cut, len(ids) - 1)
    whole = bigram_rows(torch.tensor([ids]), 100)
    if cut:
        head, tail = torch.tensor([ids[:cut]]), torch.tensor([ids[cut:]])
        parts = [bigram_rows(head, 100), bigram_rows(tail, 100, head[:, -1])]
        assert torch.equal(torch.cat(parts, 1), whole)


def hashed(**keys):
    spec = {"d_model": 8, "n_head": 2, "n_kv_head": 2, "bigram_buckets": 16, **keys}
    model = BigramHash(ModelSpec(**spec))
    generator = torch.Generator().manual_seed(0)
    for weight in model.parameters():
        if weight.ndim:
            weight.data.copy_(torch.randn(weight.shape, generator=generator))
    return model


def test_bigram_vectors_are_projected_and_scaled():
    model, ids = hashed(bigram_dim=4), torch.tensor([[1, 2, 3]])
    table = model.embed.weight[bigram_rows(ids, 16)]
    got = model(ids, None, torch.float32)
    assert_close(got, 0.05 * table @ model.proj.weight.T)
    assert model(ids, None, torch.bfloat16).dtype is torch.bfloat16


def test_bigram_vectors_of_full_width_have_no_projection():
    model, ids = hashed(bigram_dim=8), torch.tensor([[1, 2, 3]])
    assert set(dict(model.named_parameters())) == {"embed.weight", "scale"}
    assert_close(model(ids, None, torch.float32), 0.05 * model.embed.weight[bigram_rows(ids, 16)])


def test_smear_blends_with_the_position_before():
    gate = SmearGate(2)
    gate.gate.data = torch.tensor([0.0, -100.0])  # half, nothing
    x = torch.tensor([[[2.0, 1.0], [4.0, 3.0], [8.0, 5.0]]])
    want = torch.tensor([[[1.0, 1.0], [3.0, 3.0], [6.0, 5.0]]])
    assert_close(gate(x, None), want)
    assert_close(gate(x[:, 1:], x[:, 0]), want[:, 1:])
