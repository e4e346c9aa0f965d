import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from underpar.model import GPT, Role, loss, n_params, parameters_by_role, role_of, twin
from underpar.model.attention import rotation
from underpar.recipe.schema import ModelSpec

SMALL = {
    "vocab_size": 40, "d_model": 24, "n_head": 4, "n_kv_head": 2, "d_ff": 40, "seq_len": 24,
}  # fmt: skip
BIGRAM = {"bigram_buckets": 32, "bigram_dim": 8, "smear": True}
LOOP = {"loop_start": 1, "loop_end": 2, "loop_extra": 2}
SPECS = {
    "plain": ModelSpec(**SMALL, n_layer=3, layout="cores"),
    "pr456": ModelSpec(**SMALL, **BIGRAM, n_layer=4, layout="cores", xsa_last=2),
    "shared": ModelSpec(**SMALL, **BIGRAM, n_layer=5, layout="cores", n_core=2, xsa_last=1),
    "pr1413": ModelSpec(
        **SMALL, **LOOP, n_layer=5, activation="leaky_relu2", rope_dims=2, rope_ntk=True,
        xsa_last=5, ln_scale=True, skip_gates=True, qk_gain=4.0,
    ),
    "mixed": ModelSpec(
        **SMALL, **LOOP, bigram_buckets=32, bigram_dim=24, smear=True, n_layer=4, tied=False,
        skip_gates=True, softcap=5.0, layout="cores",
    ),
    "single": ModelSpec(**SMALL, n_layer=1),
}  # fmt: skip


def lively(spec, seed=0):
    """A model none of whose parameters is at a neutral value; looping wherever it can."""
    model = GPT(spec, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            noise = torch.randn(weight.shape, generator=generator)
            weight += noise * (0.3 if weight.ndim < 2 or "skip" in str(weight.role) else 0.2)
    model.looping = bool(spec.loop_extra)
    return model


def ids_for(spec, batch, n, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(spec.vocab_size, (batch, n), generator=generator)


@pytest.fixture(params=SPECS, ids=list(SPECS))
def model(request):
    return lively(SPECS[request.param])


def gradients(model, *batches):
    model.zero_grad(set_to_none=True)
    for ids in batches:
        loss(model, ids[:, :-1], ids[:, 1:]).backward()
    return {name: w.grad.clone() for name, w in model.named_parameters() if w.grad is not None}


PUBLISHED = {
    "pr456": (
        ModelSpec(
            vocab_size=1024, n_layer=10, d_ff=1536, seq_len=2048, xsa_last=3, layout="cores",
            bigram_buckets=10_240, bigram_dim=128, smear=True,
        ),
        25_517_137,
    ),
    "pr1413": (
        ModelSpec(
            vocab_size=8192, n_layer=11, d_ff=2048, seq_len=2048, activation="leaky_relu2",
            rope_dims=16, xsa_last=11, ln_scale=True, skip_gates=True, loop_start=4, loop_end=5,
            loop_extra=2, layout="blocks",
        ),
        35_943_512,
    ),
    "naive": (ModelSpec(vocab_size=1024, n_layer=9, d_ff=1024, layout="cores"), 17_059_912),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_parameter_counts(name):
    spec, count = PUBLISHED[name]
    with torch.device("meta"):
        assert n_params(GPT(spec, seed=0)) == count


def test_published_counts_by_role():
    with torch.device("meta"):
        counts = parameters_by_role(GPT(PUBLISHED["pr456"][0]))
    matrices = sum(n for role, n in counts.items() if role.is_matrix)
    assert (matrices, counts[Role.EMBEDDING], counts[Role.HASH]) == (23_658_496, 524_288, 1_310_720)
    with torch.device("meta"):
        counts = parameters_by_role(GPT(PUBLISHED["pr1413"][0]))
    assert counts[Role.ATTENTION] + counts[Role.MLP] == 31_719_424
    assert counts[Role.SKIP] + counts[Role.GATE] == 7_168


def test_paths_follow_the_layout():
    cores, blocks = (role_of(lively(SPECS[name])) for name in ("shared", "pr1413"))
    assert "cores.1.mlp.fc.weight" in cores
    assert "cores.2.mlp.fc.weight" not in cores
    assert "blocks.4.resid_mix" in cores
    assert "blocks.4.attn.q_gain" in blocks
    assert not any(path.startswith("cores") for path in blocks)


def test_logits_are_float32_and_capped(model):
    ids = ids_for(model.spec, 2, 9)
    cap = model.spec.softcap
    logits = model(ids)
    assert (logits.dtype, logits.shape) == (torch.float32, (2, 9, 40))
    head = model.tok_emb if model.lm_head is None else model.lm_head
    head.weight.data *= 1e4
    assert 0.99 * cap < model(ids).abs().max() <= cap
    head.weight.data *= 1e-4
    model.compute_dtype = torch.bfloat16
    assert model(ids).dtype is torch.float32


def test_bfloat16_activations_stay_near_float32(model):
    ids = ids_for(model.spec, 2, 9)
    with torch.no_grad():
        exact = model(ids)
        model.compute_dtype = torch.bfloat16
        seen = []
        hook = model.final_norm.register_forward_hook(lambda m, i, out: seen.append(out.dtype))
        rounded = model(ids)
    hook.remove()
    assert seen == [torch.bfloat16]
    assert 0 < (rounded - exact).norm() < 0.1 * exact.norm()


def test_a_later_token_never_moves_an_earlier_logit(model):
    ids = ids_for(model.spec, 1, 20)
    with torch.no_grad():
        before = model(ids)
        for at in (1, 10, 19):
            flipped = ids.clone()
            flipped[0, at] = (flipped[0, at] + 1) % model.spec.vocab_size
            after = model(flipped)
            assert torch.equal(after[:, :at], before[:, :at])
            assert not torch.equal(after[:, at], before[:, at])


def test_no_gradient_flows_from_a_logit_to_later_tokens(model):
    ids = torch.arange(12)[None]  # distinct, so that rows of the table are positions
    inputs = []
    model.tok_emb.register_forward_hook(lambda m, i, out: inputs.append(out) or out.retain_grad())
    model(ids)[0, 6].sum().backward()
    per_position = inputs[0].grad[0].abs().sum(-1)
    assert (per_position[7:] == 0).all()
    assert (per_position[:7] > 0).all()


def test_logits_for_is_a_slice_of_the_logits(model):
    ids = ids_for(model.spec, 2, 12)
    with torch.no_grad():
        whole = model(ids)
        for part in (slice(8, None), slice(3, 5), slice(-1, None)):
            assert_close(model(ids, logits_for=part), whole[:, part])


def test_loss_is_the_cross_entropy_of_the_logits(model):
    ids, targets = ids_for(model.spec, 2, 8), ids_for(model.spec, 2, 8, seed=2)
    with torch.no_grad():
        nats = -model(ids).log_softmax(-1).gather(-1, targets[..., None])[..., 0]
        assert_close(loss(model, ids, targets), nats.mean())
        assert_close(loss(model, ids, targets, "sum"), nats.sum())
        assert_close(loss(model, ids, targets, "none"), nats)


def test_every_parameter_is_used(model):
    used = gradients(model, ids_for(model.spec, 2, 20))
    for name, weight in model.named_parameters():
        assert weight.numel() == 0 or used[name].count_nonzero(), name


def test_looping_off_leaves_unused_skip_rows_without_gradient():
    model = lively(SPECS["pr1413"])
    ids = ids_for(model.spec, 2, 20)
    with torch.no_grad():
        on = model(ids)
        model.looping = False
        assert not torch.allclose(model(ids), on, atol=1e-2)
    assert model.skip_weights.shape == (4, 24)  # of the looped lists
    off = gradients(model, ids)
    assert all(off["skip_weights"][row].count_nonzero() for row in range(2))
    assert off["skip_weights"][2:].count_nonzero() == 0
    assert off["skip_gates"][2:].count_nonzero() == 0


def test_looped_equals_unrolled():
    looped = lively(SPECS["pr1413"])
    sequence = [0, *[1, 2] * 3, 3, 4]
    spec = ModelSpec(
        **SMALL, n_layer=9, activation="leaky_relu2", rope_dims=2, rope_ntk=True, xsa_last=9,
        ln_scale=True, skip_gates=True,
    )  # fmt: skip
    unrolled = GPT(spec)
    state = looped.state_dict()
    shared = {k: v for k, v in state.items() if not k.startswith("blocks.")}
    for place, layer in enumerate(sequence):
        unrolled.blocks[place].load_state_dict(looped.blocks[layer].state_dict())
        unrolled.blocks[place].ln_scale = (layer + 1) ** -0.5  # the physical index
    assert set(unrolled.load_state_dict(shared, strict=False).unexpected_keys) == set()
    ids = ids_for(spec, 2, 20)
    with torch.no_grad():
        assert_close(unrolled(ids), looped(ids))
    mine, twin = gradients(looped, ids), gradients(unrolled, ids)
    total = sum(twin[f"blocks.{p}.mlp.fc.weight"] for p, layer in enumerate(sequence) if layer == 1)
    assert_close(mine["blocks.1.mlp.fc.weight"], total)  # a plain sum: loops are not averaged


def unshared_twin(model):
    spec = ModelSpec(**SMALL, **BIGRAM, n_layer=5, layout="cores")
    twin = GPT(spec)
    twin.load_state_dict(
        {k: v for k, v in model.state_dict().items() if not k.startswith("cores")}, strict=False
    )
    for layer in range(5):
        twin.cores[layer].load_state_dict(model.cores[layer % 2].state_dict())
        twin.cores[layer].attn.xsa = layer % 2 == 1
    return twin


def test_a_shared_core_gets_the_mean_gradient_of_its_uses():
    model = lively(SPECS["shared"])
    twin = unshared_twin(model)
    ids = ids_for(model.spec, 2, 20)
    with torch.no_grad():
        assert_close(twin(ids), model(ids))
    mine, separate = gradients(model, ids), gradients(twin, ids)
    for name in ("mlp.fc.weight", "attn.c_q.weight", "attn.q_gain"):
        for core, layers in ((0, (0, 2, 4)), (1, (1, 3))):
            uses = torch.stack([separate[f"cores.{layer}.{name}"] for layer in layers])
            assert_close(mine[f"cores.{core}.{name}"], uses.mean(0))
    assert_close(mine["tok_emb.weight"], separate["tok_emb.weight"])


def test_sharing_is_exact_under_gradient_accumulation():
    model = lively(SPECS["shared"])
    first, second = ids_for(model.spec, 2, 20), ids_for(model.spec, 2, 20, seed=5)
    together = gradients(model, first, second)
    one, two = gradients(model, first), gradients(model, second)
    for name in together:
        assert_close(together[name], one[name] + two[name])


def test_a_deep_copy_is_whole_and_separate():
    model = lively(SPECS["shared"])
    copied = twin(model)
    assert role_of(copied) == role_of(model)
    ids = ids_for(model.spec, 2, 20)
    mine, its = gradients(model, ids), gradients(copied, ids)
    assert all(torch.equal(mine[name], its[name]) for name in mine)  # hooks: once, not twice
    copied.tok_emb.weight.data.zero_()
    assert model.tok_emb.weight.count_nonzero()


def test_scoring_in_inference_mode_leaves_the_model_trainable(model):
    ids = ids_for(model.spec, 2, 20)
    with torch.inference_mode():
        model(ids)
    assert gradients(model, ids)


def test_longer_than_seq_len_rescales_only_with_ntk():
    ids = ids_for(SPECS["pr1413"], 1, 30)
    with torch.no_grad():
        for name, same in (("plain", True), ("pr1413", False)):
            model = lively(SPECS[name])
            if name == "pr1413":  # two rotated channels have one wave, which no base changes
                model.spec = ModelSpec(**{**vars(model.spec), "rope_dims": 6})
            within = model(ids[:, :24])
            assert torch.allclose(model(ids)[:, :24], within, atol=1e-4) is same


def test_a_forward_pass_leaves_no_trace_in_the_model(model):
    ids = ids_for(model.spec, 2, 20)
    with torch.no_grad():
        first = model(ids)
        for _ in range(5):
            model(ids[:, :7])
        assert torch.equal(model(ids), first)


@pytest.mark.slow
def test_the_whole_forward_traces_without_a_break():
    for name in ("shared", "pr1413"):
        model = lively(SPECS[name])
        traced = torch.compile(model, backend="eager", fullgraph=True, dynamic=False)
        ids = ids_for(model.spec, 2, 20)
        assert_close(loss(traced, ids, ids), loss(model, ids, ids))
        model.looping = False  # guarded: a switch is seen
        assert_close(loss(traced, ids, ids), loss(model, ids, ids))


def test_twin_of_the_trunk():
    """#456's blocks and skips told in one breath, without the forward pass."""
    model = lively(SPECS["pr456"])
    p, eps = dict(model.named_parameters()), model.spec.rms_eps
    ids = ids_for(model.spec, 1, 5)
    x = model.embed(ids)
    x0, skips, tables = x, [], rotation(model.spec, 0, 5, ids.device)

    def norm(z):
        return z * (z.square().mean(-1, keepdim=True) + eps).rsqrt()

    for layer in range(4):
        if layer >= 2:
            x = x + p["skip_weights"][layer - 2] * skips.pop()
        mix = p[f"blocks.{layer}.resid_mix"]
        x = mix[0] * x + mix[1] * x0
        mixed = model.cores[layer].attn(norm(x), tables)
        x = x + p[f"blocks.{layer}.attn_scale"] * mixed
        hidden = F.relu(norm(x) @ p[f"cores.{layer}.mlp.fc.weight"].T) ** 2
        out = hidden @ p[f"cores.{layer}.mlp.proj.weight"].T
        x = x + p[f"blocks.{layer}.mlp_scale"] * out
        if layer < 2:
            skips.append(x)
    raw = norm(x) @ p["tok_emb.weight"].T
    assert_close(model(ids), 30 * torch.tanh(raw / 30))
