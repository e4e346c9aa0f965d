import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.scoring import LOOPED, MODEL, SCORE, small_model
from underpar.artifact import layout
from underpar.artifact.check import plain_sizes
from underpar.artifact.container import write_container
from underpar.artifact.load import load, read_container, read_weights
from underpar.artifact.pack import file_sha256, pack
from underpar.data.tokenizer import ByteTokenizer, train_bpe
from underpar.errors import ArtifactError
from underpar.grid.tensors import QuantizedModel, QuantizedTensor
from underpar.model import GPT
from underpar.recipe.schema import ModelSpec

BYTES = ModelSpec(vocab_size=257, seq_len=16, n_layer=2, d_model=16, n_head=2, n_kv_head=1, d_ff=32)


class TinyTokenizer(ByteTokenizer):
    """Fits a model of 17 ids: only the count matters here."""

    def __init__(self):
        super().__init__()
        self.vocab_size = 17


def quantized(model):
    """int6 rows for every matrix, float16 for the rest."""
    tensors = {}
    for path, weight in model.state_dict().items():
        if weight.ndim == 2 and weight.numel() > 64:
            scales = (weight.abs().amax(1) / 31).half()
            codes = (weight / scales.float()[:, None]).round().clamp(-32, 31).to(torch.int8)
            tensors[path] = QuantizedTensor(codes, scales, 6)
        else:
            tensors[path] = weight.half()
    return QuantizedModel(tensors)


def write(path, weights, spec=BYTES, **changes):
    settings = {
        "model_spec": spec,
        "score_spec": SCORE,
        "looping": False,
        "dtype": "float32",
        "tokenizer": ByteTokenizer(),
        "recipe_digest": "0" * 64,
        "compressor": "rans",
        "byte_shuffle": False,
    }
    pack(path, weights, **{**settings, **changes})
    return path


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    return write(tmp_path_factory.mktemp("packed") / "m.upar", quantized(small_model(BYTES)))


@pytest.fixture
def path(packed, tmp_path):
    """A copy of it, to be changed."""
    return Path(shutil.copy(packed, tmp_path))


@pytest.mark.parametrize("compressor", ["rans", "lzma", "raw", "brotli", "zstd"])
@pytest.mark.parametrize("byte_shuffle", [False, True])
def test_quantized_weights_come_back_exactly(tmp_path, compressor, byte_shuffle):
    for name, module in (("brotli", "brotli"), ("zstd", "zstandard")):
        if compressor == name:
            pytest.importorskip(module)
    weights = quantized(small_model(BYTES))
    path = write(tmp_path / "m", weights, compressor=compressor, byte_shuffle=byte_shuffle)
    loaded = load(path)
    wanted = weights.state_dict()
    assert list(loaded.model.state_dict()) == list(wanted)
    for name, weight in loaded.model.state_dict().items():
        assert torch.equal(weight, wanted[name]), name
    for name, stored in read_weights(path).items():
        if isinstance(stored, QuantizedTensor):
            assert torch.equal(stored.codes, weights[name].codes)
            assert torch.equal(stored.scales, weights[name].scales)
            assert stored.bits == 6
        else:
            assert stored.dtype == torch.float16


def test_float_weights_come_back_bit_for_bit(tmp_path):
    model = small_model(BYTES)
    weights = dict(model.state_dict())
    weights["tok_emb.weight"] = weights["tok_emb.weight"].bfloat16()
    for compressor in ("raw", "lzma"):
        loaded = load(write(tmp_path / "f.upar", weights, compressor=compressor))
        for name, weight in loaded.model.state_dict().items():
            assert torch.equal(weight, weights[name].float()), name
    assert read_weights(tmp_path / "f.upar")["tok_emb.weight"].dtype == torch.bfloat16


@pytest.mark.parametrize("spec", [MODEL, LOOPED], ids=["shared", "looped"])
def test_what_the_model_computes_is_in_the_file(tmp_path, monkeypatch, spec):
    monkeypatch.setattr("underpar.artifact.load.tokenizer_from", lambda *_: TinyTokenizer())
    model = small_model(spec).eval()
    path = write(
        tmp_path / "m.upar",
        model.state_dict(),
        spec,
        looping=model.looping,
        tokenizer=TinyTokenizer(),
        dtype="bfloat16",
    )
    loaded = load(path)
    ids = torch.arange(16).reshape(2, 8)
    model.compute_dtype = torch.bfloat16
    assert loaded.model.looping == bool(spec.loop_extra)
    assert not loaded.model.training
    assert loaded.score == SCORE
    assert loaded.model.spec == spec
    assert torch.equal(loaded.model(ids), model(ids))


def test_the_header_of_a_file(path):
    loaded = load(path)
    assert loaded.sha256 == file_sha256(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    assert loaded.tokenizer.kind == "bytes"
    assert loaded.header["recipe"] == "0" * 64
    assert sum(loaded.sections.values()) < path.stat().st_size
    assert set(loaded.sections) == {"codes", "scales", "float16"}


def test_the_same_weights_give_the_same_bytes(path, tmp_path):
    again = write(tmp_path / "again", quantized(small_model(BYTES)))
    assert again.read_bytes() == path.read_bytes()


def test_codes_cost_less_than_their_width(path):
    loaded = load(path)
    n = sum(w.codes.numel() for w in read_weights(path).values() if isinstance(w, QuantizedTensor))
    assert loaded.sections["codes"] < 6 / 8 * n


def test_a_model_with_empty_parameters(tmp_path):
    spec = ModelSpec(vocab_size=257, n_layer=1, d_model=8, n_head=1, n_kv_head=1, d_ff=8)
    model = GPT(spec, seed=0)
    assert model.skip_weights.numel() == 0
    loaded = load(write(tmp_path / "m", quantized(model), spec))
    assert loaded.model.skip_weights.shape == model.skip_weights.shape


def test_sentencepiece_models_travel_in_the_file(tmp_path):
    tokenizer = train_bpe(["In 1873 we met.\n\nIn 1873 we parted.\n\n" * 20] * 3, 300)
    spec = ModelSpec(vocab_size=300, n_layer=1, d_model=8, n_head=1, n_kv_head=1, d_ff=8)
    loaded = load(write(tmp_path / "m", quantized(GPT(spec, seed=0)), spec, tokenizer=tokenizer))
    assert loaded.tokenizer.fingerprint() == tokenizer.fingerprint()
    small = ModelSpec(vocab_size=256, n_layer=1, d_model=8, n_head=1, n_kv_head=1, d_ff=8)
    path = write(tmp_path / "s", quantized(GPT(small, seed=0)), small, tokenizer=tokenizer)
    with pytest.raises(ArtifactError, match="300 pieces"):
        load(path)


def test_weights_of_another_model_are_refused(tmp_path):
    weights = dict(quantized(small_model(BYTES)))
    for changed, name in (
        ({k: v for k, v in weights.items() if k != "blocks.1.attn_scale"}, "blocks.1.attn_scale"),
        (weights | {"extra": torch.zeros(2)}, "extra"),
        (weights | {"skip_weights": torch.zeros(1, 15)}, "skip_weights"),
    ):
        with pytest.raises(ArtifactError, match=name):
            load(write(tmp_path / "m", changed))


ABSURD = 10**9


def change(**values):
    return lambda header: header["model"].update(values)


def entry(index, row):
    return lambda header: header["tensors"].__setitem__(index, row)


FORGERIES = {
    "a billion layers": change(n_layer=ABSURD),
    "a billion loops": change(loop_start=0, loop_end=0, loop_extra=ABSURD),
    "a billion cores": change(layout="cores", n_core=ABSURD),
    "a wide model": change(d_model=2 * ABSURD),
    "a wider model": change(d_model=2 * 10**18),
    "a large vocabulary": change(vocab_size=65_536),
    "a large hash": change(bigram_buckets=10**15),
    "an impossible model": change(n_head=3),
    "an unknown setting": change(colour="red"),
    "a wrong type": change(n_layer="two"),
    "another architecture": change(smear=True),
    "no settings": lambda h: h.pop("model"),
    "settings of no sort": lambda h: h.update(score=[1]),
    "an unknown dtype": lambda h: h.update(dtype="int8"),
    "a dtype that cannot be hashed": lambda h: h.update(dtype=["float32"]),
    "looping that is a number": lambda h: h.update(looping=1),
    "an unknown tokenizer": lambda h: h.update(tokenizer="words"),
    "no tensor table": lambda h: h.pop("tensors"),
    "no codings": lambda h: h.pop("codings"),
    "a coding too few": lambda h: h["codings"].pop("scales"),
    "codings of no sort": lambda h: h["codings"].update(codes=3),
    "a section too large": lambda h: h["codings"]["codes"].__setitem__(1, 10**15),
    "an unknown codec": lambda h: h["codings"]["scales"].__setitem__(0, "zip"),
    "weights' coder on floats": lambda h: h["codings"]["float16"].__setitem__(0, "rans"),
    "a codec that is none": lambda h: h["codings"]["codes"].__setitem__(0, "raw"),
    "a shuffle that is none": lambda h: h["codings"]["float16"].__setitem__(2, 7),
    "an absurd tensor": entry(0, ["tok_emb.weight", [ABSURD, ABSURD], "int6"]),
    "an entry of no sort": entry(0, "tok_emb.weight"),
    "negative sizes": entry(0, ["tok_emb.weight", [-257, -16], "int6"]),
    "an unknown kind": entry(0, ["tok_emb.weight", [257, 16], "int9"]),
    "a tensor twice": lambda h: h["tensors"].append(h["tensors"][-1]),
    "a tensor missing": lambda h: h["tensors"].pop(),
    "tensors of another order": lambda h: h["tensors"].reverse(),
}


@pytest.mark.parametrize("forgery", FORGERIES.values(), ids=FORGERIES)
def test_a_forged_header_is_refused(path, forgery):
    """The checksums are right, the content is not. Nothing large may be allocated on the way."""
    header, sections = read_container(path)
    forgery(header)
    write_container(path, header, sections)
    with pytest.raises(ArtifactError, match=r"m\.upar"):
        load(path)


def test_a_consistent_bomb_is_refused(tmp_path):
    """Zeros compress to nothing, so a small file can truthfully describe an enormous model."""
    spec = ModelSpec(vocab_size=65_536, d_model=4096, n_layer=1, n_head=1, n_kv_head=1, d_ff=8)
    with torch.device("meta"):
        shapes = {name: t.shape for name, t in GPT(spec).state_dict().items()}
    entries = [layout.Entry(name, tuple(shape), "float16") for name, shape in shapes.items()]
    path = write(tmp_path / "m.upar", quantized(small_model(BYTES)))
    header, _ = read_container(path)
    size = plain_sizes(entries)["float16"]
    header["codings"] = {"float16": ["lzma", size, 2]}
    header["tensors"] = [entry.to_json() for entry in entries]
    header["model"] |= {k: getattr(spec, k) for k in ("vocab_size", "d_model", "n_layer", "n_head")}
    write_container(path, header, {"float16": bytes(100_000)})
    with pytest.raises(ArtifactError, match="bytes asked for"):
        load(path)


def test_flipped_bits_in_a_file(path):
    data, rng = path.read_bytes(), np.random.default_rng(0)
    for position in rng.integers(0, 8 * len(data), 200):
        damaged = bytearray(data)
        damaged[position // 8] ^= 1 << position % 8
        path.write_bytes(bytes(damaged))
        with pytest.raises(ArtifactError):
            load(path)


def test_the_header_is_json(path):
    header, _ = read_container(path)
    assert json.loads(json.dumps(header)) == header
