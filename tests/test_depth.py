import json
from pathlib import Path

import pytest

from underpar.model import depth
from underpar.recipe.schema import ModelSpec

GOLDEN = json.loads((Path(__file__).parent / "data/golden/schedule.json").read_text())


@pytest.mark.parametrize("case", GOLDEN["loop_indices"], ids=str)
def test_orders_match_the_published_lists(case):
    loop = {}
    if case["num_loops"]:
        loop = {"loop_start": case["loop_start"], "loop_end": case["loop_end"]}
    spec = ModelSpec(n_layer=case["num_layers"], loop_extra=case["num_loops"], **loop)
    off, on = depth.order(spec, looping=False), depth.order(spec, looping=True)
    assert list(off.encoder) == case["inactive_encoder"]
    assert list(off.decoder) == case["inactive_decoder"]
    assert list(on.encoder) == case["encoder"]
    assert list(on.decoder) == case["decoder"]
    assert depth.skip_rows(spec) == case["num_skip_weights"]
    assert len(on) == len(case["encoder"]) + len(case["decoder"])


@pytest.mark.parametrize("case", GOLDEN["core_indices_456"], ids=str)
def test_cores_match_the_published_lists(case):
    layers = case["num_layers"]
    spec = ModelSpec(
        n_layer=layers, n_core=case["unique_layers"], xsa_last=case["xsa_last_n"], layout="cores"
    )
    assert spec.cores == case["n_cores"]
    assert [depth.core_of(spec, layer) for layer in range(layers)] == case["core_of_layer"]
    assert [depth.has_xsa(spec, core) for core in range(spec.cores)] == case["xsa_per_core"]
    uses = [case["core_of_layer"].count(core) for core in range(spec.cores)]
    assert depth.core_uses(spec) == uses
    assert depth.skip_rows(spec) == case["num_skip_weights"]


@pytest.mark.parametrize("n_layer", [1, 2, 3])
def test_few_layers(n_layer):
    halves = depth.order(ModelSpec(n_layer=n_layer), looping=True)
    assert halves.encoder + halves.decoder == tuple(range(n_layer))
    assert depth.skip_rows(ModelSpec(n_layer=n_layer)) == n_layer // 2
