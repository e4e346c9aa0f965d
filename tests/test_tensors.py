"""Quantized tensors and models as values."""

from __future__ import annotations

import pytest
import torch

from underpar.grid.tensors import QuantizedModel, QuantizedTensor


def example() -> QuantizedModel:
    codes = torch.tensor([[1, -2, 3], [0, 5, -31]], dtype=torch.int8)
    return QuantizedModel(
        {
            "a.weight": QuantizedTensor(codes, torch.tensor([0.5, 2.0]).half(), 6),
            "gain": torch.tensor([1.5, 2.5]).half(),
        }
    )


def test_dequantize_multiplies_each_row_by_its_step() -> None:
    state = example().state_dict()
    assert state["a.weight"].tolist() == [[0.5, -1.0, 1.5], [0.0, 10.0, -62.0]]
    assert state["gain"].tolist() == [1.5, 2.5]
    assert {t.dtype for t in state.values()} == {torch.float32}


def test_packed_bytes_round_up_and_count_steps() -> None:
    # 6 codes at 6 bits are 4.5 bytes, 2 float16 steps, 2 float16 gains.
    assert example().packed_bytes == 5 + 4 + 4


def test_order_is_kept_and_nothing_can_be_assigned() -> None:
    model = example()
    assert list(model) == ["a.weight", "gain"]
    assert len(model) == 2
    with pytest.raises(TypeError):
        model["gain"] = torch.zeros(2)  # type: ignore[index]


def test_a_model_is_a_snapshot_of_the_mapping_it_was_made_from() -> None:
    tensors = {"gain": torch.ones(2)}
    model = QuantizedModel(tensors)
    tensors["other"] = torch.ones(1)
    assert list(model) == ["gain"]
