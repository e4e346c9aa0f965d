"""The child process of the auditor: its world, its stand-ins, and whole runs of small scripts."""

from __future__ import annotations

import ast
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentencepiece import SentencePieceProcessor

from tests import children
from underpar.audit.child import __main__ as child
from underpar.audit.child import rewrite, shards
from underpar.audit.child.modelproto import model_file
from underpar.audit.child.pieces import BOS, Pieces
from underpar.audit.child.shrink import Shrinker, Sizes

SPEC = {"vocab": 64, "n_tokens": 1200, "seed": 3, "flips": []}


# --- the stream ---------------------------------------------------------------------------------


@pytest.mark.parametrize("vocab", [64, 260, 1024])
def test_every_window_of_four_tokens_stands_once(vocab: int) -> None:
    tokens = shards.stream({**SPEC, "vocab": vocab}).tolist()
    windows = list(zip(tokens, tokens[1:], tokens[2:], tokens[3:]))
    assert len(set(windows)) == len(windows) == 1197
    assert tokens[0] == BOS
    assert 4 <= tokens.count(BOS) <= 60
    assert max(tokens) < vocab


def test_contexts_of_three_repeat_late() -> None:
    tokens = shards.stream(SPEC).tolist()
    contexts = list(zip(tokens, tokens[1:], tokens[2:]))
    late = contexts[600:]
    known = sum(c in set(contexts[:i]) for i, c in enumerate(contexts) if i >= 600)
    assert known > 0.1 * len(late)


def test_flips_change_nothing_else() -> None:
    plain = shards.stream(SPEC)
    flipped = shards.stream({**SPEC, "flips": [(700, 20), (3, 9)]})
    changed = np.flatnonzero(plain != flipped)
    assert set(changed.tolist()) <= {3, 700}
    assert flipped[700] == 20
    assert flipped[3] == 9


def test_training_tokens_share_no_window_with_validation() -> None:
    train = shards.train_stream(SPEC, 3000).tolist()
    tokens = shards.stream(SPEC).tolist()
    windows = set(zip(tokens, tokens[1:], tokens[2:], tokens[3:]))
    assert len(train) == 3000
    assert not windows & set(zip(train, train[1:], train[2:], train[3:]))


def test_shard_has_the_published_header(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    shards.write_shard(path, [1, 2, 65535])
    header = np.fromfile(path, dtype="<i4", count=256)
    assert header[:3].tolist() == [20240520, 1, 3]
    assert np.fromfile(path, dtype="<u2", offset=1024).tolist() == [1, 2, 65535]


# --- the vocabulary -----------------------------------------------------------------------------


@pytest.mark.parametrize("vocab", [64, 1024, 8192])
def test_pieces_have_every_kind_and_no_duplicate(vocab: int) -> None:
    pieces = Pieces(vocab)
    assert len(pieces.names) == len(set(pieces.names)) == vocab
    assert any(pieces.leading_space())
    assert any(pieces.is_byte(i) for i in range(vocab))
    assert any(len(n.encode()) > len(n) and n[0] not in "\u2581" for n in pieces.names)


def test_the_model_file_is_one_that_sentencepiece_loads() -> None:
    vocab = 1024  # of a smaller one not all 256 bytes are there, which it insists on
    pieces = Pieces(vocab)
    real = SentencePieceProcessor(model_proto=model_file(pieces))
    assert [real.id_to_piece(i) for i in range(real.vocab_size())] == pieces.names
    assert [real.is_byte(i) for i in range(vocab)] == [pieces.is_byte(i) for i in range(vocab)]
    assert (real.bos_id(), real.eos_id(), real.pad_id(), real.unk_id()) == (1, 2, 0, 3)
    ids = [i for i in range(vocab) if pieces.is_text(i)][:40]
    assert real.decode(ids) == pieces.decode(ids)


def test_byte_table_agrees_with_decoded_text() -> None:
    pieces = Pieces(64)
    tokens = shards.stream(SPEC)
    lengths = shards.byte_lengths(tokens, pieces)
    starts = [*np.flatnonzero(tokens == BOS).tolist(), len(tokens)]
    for a, b in itertools.pairwise(starts):
        assert lengths[a] == 0
        text = pieces.decode(tokens[a:b].tolist()).encode()
        assert lengths[a:b].sum() == len(text)


def test_encode_and_decode_agree() -> None:
    pieces = Pieces(1024)
    text = pieces.decode([300, 400, 301, 500, 270])
    assert pieces.decode(pieces.encode(text)) == text
    assert pieces.decode(pieces.encode("zz \u00e9t")) == "zz \u00e9t"


# --- sizes --------------------------------------------------------------------------------------


def shrinker(environment: dict[str, str], **defaults: Any) -> Shrinker:
    return Shrinker(Sizes(), environment, defaults)


@pytest.mark.parametrize(
    ("name", "default", "wanted"),
    [
        ("NUM_LAYERS", 11, "2"),
        ("MODEL_DIM", 512, "64"),
        ("VOCAB_SIZE", 8192, "64"),
        ("EVAL_STRIDE", 64, "16"),
        ("TTT_CHUNK_TOKENS", 32768, "256"),
        ("TTT_CHUNK_SIZE", 48, "16"),
        ("PREQUANT_TTT_EPOCHS", 21, "3"),
        ("TTT_EPOCHS", 2, None),
        ("MUON_BACKEND_STEPS", 5, None),
        ("NGRAM_ORDER", 9, None),
        ("BIGRAM_VOCAB_SIZE", 0, None),
        ("SLOT_STEPS", 24, "4"),
        ("LOOP_END", 5, "0"),
        ("PARALLEL_START_LAYER", 8, "1"),
        ("RECUR_LAYERS", "4,5", "0"),
        ("DEPTH_RECURRENCE", "2,9", "0,1"),
        ("DELTA_FIRST_N", 4, "2"),
        ("XSA_LAST_N", 4, "2"),
        ("NUM_SHARED_BLOCKS", 3, "2"),
        ("NUM_HEADS", 3, "2"),
        ("NGRAM_BUCKETS", 4194304, "16384"),
        ("GPTQ_RESERVE_SECONDS", 12.0, None),
    ],
)
def test_sizes_shrink_and_behaviour_stays(name: str, default: Any, wanted: str | None) -> None:
    assert shrinker({}, **{"NUM_LAYERS": 11, name: default}).setting(name) == wanted


def test_the_headlines_settings_are_kept_or_made_small() -> None:
    s = shrinker({"TTT_EPOCHS": "10", "TTT_ENABLED": "1", "NGRAM_ORDER": "7"}, TTT_EPOCHS=1)
    assert s.setting("TTT_EPOCHS") == "3"
    assert s.setting("TTT_ENABLED") == "1"
    assert s.setting("NGRAM_ORDER") == "7"
    assert shrinker({"EVAL_ONLY": "1"}).setting("EVAL_ONLY") == "0"


def test_facts_are_read_without_running_the_script() -> None:
    tree = ast.parse(
        "import os\n"
        "a = int(os.environ.get('TRAIN_BATCH_TOKENS', 2048 * 24 * 8))\n"
        "b = env('TTT_LR', str(0.5))\n"
        "c = os.environ['RUN_ID']\n"
        "num_layers: int = 12\n"
        "p.add_argument('-d', '--model-dim', type=int, default=512)\n"
        "try:\n    import zstandard\nexcept ImportError:\n    zstandard = None\n"
        "try:\n    import fused\nexcept ImportError:\n    raise\n"
        "try:\n    import other\nexcept ImportError:\n    sys.exit(1)\n"
    )
    assert rewrite.defaults(tree) == {"TRAIN_BATCH_TOKENS": 393216, "TTT_LR": 0.5, "RUN_ID": None}
    assert rewrite.literals(tree) == {"NUM_LAYERS": 12, "MODEL_DIM": 512}
    assert rewrite.guarded_imports(tree) == {"zstandard"}


def test_the_tree_is_changed_where_it_must_be() -> None:
    tree = ast.parse(
        "class H:\n    num_layers = 9\n    seq_len: int = 2 * 1024\n    k = 3\n"
        "x = t.to('cuda').is_cuda and f'cuda:{rank}'\n"
        "skip_layers = (3, 8)\n"
        "sizes = (3, 8)\n"
        "p.add_argument('--num-layers', default=9)\n"
        "sample = stream.take(65536) + stream.take(512) + stream.take(n)\n"
        "def f(batch_seqs=32, dim=1): return g(stride=64, pin_memory=True, dim=-1)\n"
        "y, _ = flash_attn_func(q, k, v)\n"
    )
    changed = rewrite.rewrite(tree, shrinker({}, NUM_LAYERS=9))
    text = ast.unparse(tree)
    assert changed == {"NUM_LAYERS": 9, "SEQ_LEN": 2048, "BATCH_SEQS": 32, "STRIDE": 64}
    for part in (
        "num_layers = 2",
        "seq_len: int = 64",
        "k = 3",
        "x = True and 'cpu'",
        "batch_seqs=4, dim=1",
        "stride=16, pin_memory=False, dim=-1",
        "return_attn_probs=True",
        "skip_layers = (0, 1)",
        "sizes = (3, 8)",
        "p.add_argument('--num-layers', default=2)",
        "stream.take(4096) + stream.take(512) + stream.take(n)",
    ):
        assert part in text
    assert "cuda" not in text


# --- whole runs ---------------------------------------------------------------------------------

SCRIPT = Path(__file__).with_name("audit_child_script.py")


def run(tmp_path: Path, world: int = 1, **environment: str) -> tuple[list[dict[str, Any]], str]:
    job = {
        "script_name": "train_gpt.py",
        "environment": environment,
        "world": world,
        "stream": {"vocab": 64, "n_tokens": 1025, "seed": 1, "flips": []},
        "seed": 7,
        "shrink": {"steps": 4},
    }
    (tmp_path / "script.py").write_text(SCRIPT.read_text())
    (tmp_path / "job.json").write_text(json.dumps(job))
    words = ["child", str(tmp_path)]
    ranks = [children.call(child.main, [*words, str(r)], HOME=str(tmp_path)) for r in range(world)]
    outputs = [children.end(rank) for rank in ranks]
    done = [json.loads((tmp_path / f"done-{r}.json").read_text()) for r in range(world)]
    assert [d["status"] for d in done] == ["finished"] * world, outputs[0].err + str(done)
    return done, outputs[0].out


def numbers(text: str) -> dict[str, float]:
    pairs = (line.split(":") for line in text.splitlines() if line.count(":") == 1)
    return {name: float(value) for name, value in pairs}


@pytest.fixture(scope="module")
def alone(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    done, text = run(tmp_path_factory.mktemp("alone"), TTT_EPOCHS="2")
    return done, numbers(text)


def test_a_script_made_for_eight_gpus_runs_to_its_end(
    alone: tuple[list[dict[str, Any]], dict[str, float]],
) -> None:
    done, got = alone
    tokens = shards.stream({"vocab": 64, "n_tokens": 1025, "seed": 1})
    true = shards.byte_lengths(tokens, Pieces(64))
    assert got["bytes"] == true[1:].sum()
    assert got["tokens"] == 1024
    assert got["epochs"] == 2
    assert got["steps"] == 4
    assert got["chunk"] == 256
    assert got["packed_width"] == 64
    assert 500 < got["train_seconds"] < 700
    assert got["eval_seconds"] < 5
    assert 1.0 < got["final val_bpb"] < 12.0
    stubs = done[0]["stubs"]
    for name in ("flash_attn", "sentencepiece", "torch.compile", "program nvidia-smi", "triton"):
        assert name in stubs
    meta = done[0]["meta"]
    assert (meta["layers"], meta["width"], meta["vocab"]) == (9, 512, 1024)
    assert meta["parameters"] > 1000
    assert meta["import_seconds"] >= 0


def test_two_ranks_agree_with_one(
    tmp_path: Path, alone: tuple[list[dict[str, Any]], dict[str, float]]
) -> None:
    one = alone[1]
    both = numbers(run(tmp_path, world=2)[1])
    assert both["tokens"] == one["tokens"]
    assert both["bytes"] == one["bytes"]
    assert both["plain val_bpb"] == pytest.approx(one["plain val_bpb"], abs=2e-3)
