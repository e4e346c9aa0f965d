import pytest
import torch
from torch.testing import assert_close

from underpar.model.layers import MLP, Linear, Norm, Table, leaky_relu2, relu2, rms_norm
from underpar.model.roles import Role


def test_rms_norm_is_its_formula_with_the_given_epsilon():
    x = torch.tensor([[3.0, 4.0], [1e-4, 0.0]])
    want = x / (x.square().mean(-1, keepdim=True) + 1e-7).sqrt()
    assert_close(rms_norm(x, 1e-7), want)
    assert_close(Norm(1e-7)(x), want)
    assert not torch.allclose(rms_norm(x, 1e-5)[1], want[1])


def test_rms_norm_of_bfloat16_is_the_rounded_float32_norm():
    x = torch.randn(5, 64, generator=torch.Generator().manual_seed(0)).bfloat16()
    got = rms_norm(x, 1e-7)
    assert got.dtype is torch.bfloat16
    assert torch.equal(got, rms_norm(x.float(), 1e-7).bfloat16())


@pytest.mark.parametrize(("x", "relu", "leaky"), [(2.0, 4.0, 4.0), (-2.0, 0.0, 1.0)])
def test_activations(x, relu, leaky):
    assert relu2(torch.tensor(x)).item() == relu
    assert leaky_relu2(torch.tensor(x)).item() == leaky


def test_linear_meets_its_input_in_the_inputs_dtype():
    layer = Linear(3, 2, Role.MLP)
    layer.weight.data = torch.full((2, 3), 1.001)  # not a bfloat16 number
    x = torch.ones(1, 3)
    assert layer(x).dtype is torch.float32
    assert layer(x).max() > 3.0
    assert layer(x.bfloat16()).dtype is torch.bfloat16
    assert layer(x.bfloat16()).max() == 3.0


def test_the_weight_hook_sees_the_float32_master_and_acts_in_training_only():
    layer = Linear(3, 2, Role.MLP)
    layer.weight.data.fill_(0.7)
    seen = []

    def round_half(weight):
        seen.append(weight.dtype)
        return weight + (weight.round() - weight).detach()

    layer.weight_hook = round_half
    x = torch.ones(1, 3)
    assert_close(layer.eval()(x), torch.full((1, 2), 2.1))
    out = layer.train()(x.bfloat16())
    assert_close(out.float(), torch.full((1, 2), 3.0))
    assert seen == [torch.float32]
    out.sum().backward()
    assert_close(layer.weight.grad, torch.ones(2, 3))  # straight through


def test_table_looks_up_rows_in_its_own_dtype():
    table = Table(4, 2, Role.HASH, torch.bfloat16)
    table.weight.data[3] = 1.5
    assert torch.equal(table(torch.tensor([3, 0])), table.weight[[3, 0]])
    assert table(torch.tensor([3])).dtype is torch.bfloat16


def test_mlp_starts_at_zero_and_is_two_maps_around_the_activation():
    mlp = MLP(4, 6, "leaky_relu2")
    assert mlp.proj.zero_init
    assert not mlp.fc.zero_init
    generator = torch.Generator().manual_seed(1)
    for layer in (mlp.fc, mlp.proj):
        layer.weight.data.normal_(generator=generator)
    x = torch.randn(2, 3, 4, generator=generator)
    hidden = x @ mlp.fc.weight.T
    hidden = torch.where(hidden > 0, hidden, 0.5 * hidden) ** 2
    assert_close(mlp(x), hidden @ mlp.proj.weight.T)
