import pytest
import torch
from torch.testing import assert_close

from tests.test_gpt import SPECS, ids_for, lively
from underpar.errors import RecipeError
from underpar.model import GPT
from underpar.recipe.schema import ModelSpec

BATCH, N = 2, 20


@pytest.fixture(params=SPECS, ids=list(SPECS))
def model(request):
    return lively(SPECS[request.param])


@pytest.mark.parametrize("chunks", [[1] * N, [7, 1, 5, 7], [N], [N - 1, 1]], ids=str)
def test_stepwise_equals_parallel(model, chunks):
    ids = ids_for(model.spec, BATCH, N)
    with torch.no_grad():
        whole = model(ids)
        cache = model.new_cache(BATCH)
        parts = [model(part, cache=cache) for part in ids.split(chunks, dim=1)]
    assert cache.length == N
    assert_close(torch.cat(parts, 1), whole, atol=1e-5, rtol=0)


def test_lanes_do_not_see_each_other(model):
    ids = ids_for(model.spec, BATCH, N)
    with torch.no_grad():
        both, alone = model.new_cache(BATCH), model.new_cache(1)
        for part in ids.split(6, dim=1):
            together = model(part, cache=both)[:1]
            assert_close(model(part[:1], cache=alone), together, atol=1e-5, rtol=0)


def test_a_cache_made_in_inference_mode_works_outside_and_back():
    model = lively(SPECS["pr456"])
    ids = ids_for(model.spec, 1, 6)
    with torch.inference_mode():
        whole = model(ids)
        cache = model.new_cache(1)
        first = model(ids[:, :2], cache=cache)
    with torch.no_grad():
        second = model(ids[:, 2:4], cache=cache)
    with torch.inference_mode():
        third = model(ids[:, 4:], cache=cache)
    assert_close(torch.cat((first, second, third), 1), whole, atol=1e-5, rtol=0)


def test_the_cache_grows_past_seq_len_without_ntk():
    model = lively(SPECS["pr456"])
    assert model.spec.seq_len == 24
    ids = ids_for(model.spec, 1, 60)
    with torch.no_grad():
        cache = model.new_cache(1)
        parts = [model(part, cache=cache) for part in ids.split([20, 30, 10], dim=1)]
        assert_close(torch.cat(parts, 1), model(ids), atol=1e-5, rtol=0)


def test_growing_past_seq_len_with_ntk_is_refused():
    model = lively(SPECS["pr1413"])
    cache = model.new_cache(1)
    with torch.no_grad():
        model(ids_for(model.spec, 1, 24), cache=cache)
        with pytest.raises(RecipeError, match=r"25 tokens.*at most 24.*new cache"):
            model(ids_for(model.spec, 1, 1), cache=cache)


def test_a_cache_of_another_looping_state_is_refused():
    model = lively(SPECS["pr1413"])
    cache = model.new_cache(1)
    model.looping = False
    with torch.no_grad(), pytest.raises(AssertionError, match="looping state"):
        model(ids_for(model.spec, 1, 3), cache=cache)


def test_gradients_through_a_cache_are_refused():
    model = GPT(ModelSpec(vocab_size=8, d_model=8, n_head=2, n_kv_head=1, n_layer=1), seed=0)
    with pytest.raises(AssertionError, match="no_grad"):
        model(torch.tensor([[1, 2]]), cache=model.new_cache(1))
