import math

import pytest
import torch
from torch.testing import assert_close

from underpar.model.attention import Attention, attend, rotate, rotation, without_own_value
from underpar.recipe.schema import ModelSpec

CPU = torch.device("cpu")


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def spec(**keys):
    return ModelSpec(**{"d_model": 32, "n_head": 4, "n_kv_head": 2, "seq_len": 16, **keys})


def attend_slowly(q, k, v):
    """Head by head, query by query, with the softmax written out."""
    out = torch.zeros_like(q)
    batch, heads, new, width = q.shape
    seen, group = k.shape[2], heads // k.shape[1]
    for b in range(batch):
        for h in range(heads):
            keys, values = k[b, h // group], v[b, h // group]
            for t in range(new):
                visible = seen - new + t + 1
                weights = (keys[:visible] @ q[b, h, t] / math.sqrt(width)).softmax(0)
                out[b, h, t] = weights @ values[:visible]
    return out


@pytest.mark.parametrize(("new", "seen"), [(5, 5), (1, 1), (1, 6), (3, 7)])
@pytest.mark.parametrize("n_kv_head", [1, 2, 4])
def test_attend_equals_its_slow_twin(new, seen, n_kv_head):
    q = draw(2, 4, new, 8)
    k, v = draw(2, n_kv_head, seen, 8, seed=1), draw(2, n_kv_head, seen, 8, seed=2)
    cached = k.shape[2] > q.shape[2]
    assert_close(attend(q, k, v, cached=cached), attend_slowly(q, k, v))


def test_rotation_rotates_pairs_of_halves_by_position_times_frequency():
    x = draw(1, 1, 6, 8)
    got = rotate(x, rotation(spec(rope_base=100.0), 0, 6, CPU))
    for t in range(6):
        for i in range(4):
            angle = t * 100.0 ** (-2 * i / 8)
            a, b = x[0, 0, t, i].item(), x[0, 0, t, i + 4].item()
            want = a * math.cos(angle) + b * math.sin(angle)
            assert got[0, 0, t, i].item() == pytest.approx(want, abs=1e-5)
            want = b * math.cos(angle) - a * math.sin(angle)
            assert got[0, 0, t, i + 4].item() == pytest.approx(want, abs=1e-5)


def test_partial_rotation_leaves_the_other_channels_alone():
    x = draw(1, 2, 6, 8)
    tables = rotation(spec(rope_dims=4), 0, 6, CPU)
    assert torch.equal(rotate(x, tables)[..., 4:], x[..., 4:])
    assert_close(rotate(x, tables)[..., :4], rotate(x[..., :4], tables))


def test_scores_depend_on_distance_only():
    q, k = draw(1, 1, 1, 8), draw(1, 1, 1, 8, seed=1)
    near = [rotate(z, rotation(spec(), at, 1, CPU)) for z, at in ((q, 7), (k, 3))]
    far = [rotate(z, rotation(spec(), at, 1, CPU)) for z, at in ((q, 1007), (k, 1003))]
    assert_close((near[0] * near[1]).sum(), (far[0] * far[1]).sum(), atol=1e-3, rtol=0)


def test_angles_stay_exact_where_bfloat16_positions_would_repeat():
    tables = rotation(spec(), 1024, 4, CPU)
    assert tables.cos.dtype is torch.float32
    assert_close(tables.cos[:, 0], torch.tensor([math.cos(p) for p in range(1024, 1028)]))


def test_ntk_stretches_the_slowest_wave_by_the_ratio_of_lengths():
    plain, ntk = spec(rope_dims=8), spec(rope_dims=8, rope_ntk=True)
    # strictly longer than seq_len = 16
    assert torch.equal(rotation(ntk, 0, 16, CPU).cos, rotation(plain, 0, 16, CPU).cos)
    slow, slow_ntk = (torch.asin(rotation(s, 0, 32, CPU).sin[1, -1]) for s in (plain, ntk))
    assert (slow / slow_ntk).item() == pytest.approx(2.0, rel=1e-4)
    base = 10_000 * 2 ** (8 / 6)
    want = torch.tensor([base ** (-2 * i / 8) for i in range(4)])
    assert_close(torch.asin(rotation(ntk, 0, 32, CPU).sin[1, 1:]), want[1:])
    assert torch.equal(rotation(ntk, 31, 1, CPU).cos[0], rotation(ntk, 0, 32, CPU).cos[31])


def test_ntk_with_one_wave_changes_nothing():
    tables = rotation(spec(rope_dims=2, rope_ntk=True), 0, 40, CPU)
    assert_close(tables.cos[:, 0], torch.arange(40.0).cos())


def test_xsa_leaves_nothing_parallel_to_the_own_value():
    y, v = draw(2, 4, 5, 8), draw(2, 2, 5, 8, seed=1)
    out = without_own_value(y, v)
    for head in range(4):
        along = (out[:, head] * v[:, head // 2]).sum(-1)
        assert along.abs().max() < 1e-5
        moved = y[:, head] - out[:, head]  # parallel to v
        cosine = torch.cosine_similarity(moved, v[:, head // 2], dim=-1).abs()
        assert_close(cosine, torch.ones_like(cosine))


def test_xsa_of_a_zero_value_changes_nothing_and_has_a_gradient():
    y, v = draw(1, 2, 3, 4), torch.zeros(1, 1, 3, 4, requires_grad=True)
    out = without_own_value(y, v)
    assert torch.equal(out, y)
    out.sum().backward()
    assert v.grad.isfinite().all()


def test_queries_are_bounded_by_their_gain():
    layer = Attention(spec(qk_gain=4.0), xsa=False)
    assert torch.equal(layer.q_gain, torch.full((4,), 4.0))
    assert layer.proj.zero_init
    for weights in (layer.c_q, layer.c_k, layer.c_v, layer.proj):
        weights.weight.data.copy_(draw(*weights.weight.shape, seed=3))
    x, tables = draw(1, 6, 32), rotation(spec(), 0, 6, CPU)
    once = layer(x, tables)
    layer.c_q.weight.data *= 100  # normed away
    assert_close(layer(x, tables), once, atol=1e-5, rtol=1e-4)
    layer.q_gain.data *= 2  # not normed away
    assert not torch.allclose(layer(x, tables), once, atol=1e-2)


def test_short_bfloat16_sequences_on_the_cpu_agree_with_the_fused_kernel():
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 4, 33, 16, generator=generator) for _ in range(3))
    low = attend(q.bfloat16(), k[:, :2].bfloat16(), v[:, :2].bfloat16())
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.float(), attend(q, k[:, :2], v[:, :2]), atol=0.03, rtol=0.03)
    changed = torch.cat((v[:, :2, :-1], -v[:, :2, -1:]), dim=2)
    flipped = attend(q.bfloat16(), k[:, :2].bfloat16(), changed.bfloat16())
    assert torch.equal(flipped[:, :, :-1], low[:, :, :-1])
    assert not torch.equal(flipped[:, :, -1], low[:, :, -1])
