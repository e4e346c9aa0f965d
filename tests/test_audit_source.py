"""One legal and one violating twin for each static class; the legal ones raise no suspicion."""

import ast
from pathlib import Path

import pytest

from underpar.audit.facts import Submission
from underpar.audit.source import findings
from underpar.audit.source_graph import Program


def codes(source: str, settings: dict[str, str] | None = None, **documents: str) -> set[str]:
    sub = Submission(
        root=Path("s"),
        script=Path("s/train_gpt.py"),
        source=source,
        packed=False,
        files={"train_gpt.py": len(source)},
        settings=settings or {},
        settings_from="",
        documents={name.replace("_md", ".md"): text for name, text in documents.items()},
    )
    found = findings(sub)
    assert all(f.kind == "static" for f in found)
    return {f.code for f in found}


ADAPT_FIRST = """
def adapt(model, optimizer, val_tokens):
    for start in range(0, 100, 10):
        x = val_tokens[start : start + 10]
        model(x).backward()
        optimizer.step()

def evaluate(model, val_tokens):
    total = byte_count = 0
    for start in range(0, 100, 10):
        total += model(val_tokens[start : start + 10])
        byte_count += 10
    return total / byte_count

def main(model, optimizer, val_tokens):
    adapt(model, optimizer, val_tokens)
    return evaluate(model, val_tokens)

main(1, 2, 3)
"""
ADAPT_AFTER = """
def learn(model, optimizer, val_tokens, start):
    for part in range(2):
        model(val_tokens[start : start + 10]).backward()
        optimizer.step()

def evaluate(model, optimizer, val_tokens):
    total = byte_count = 0
    for start in range(0, 100, 10):
        total += model(val_tokens[start : start + 10])
        byte_count += 10
        learn(model, optimizer, val_tokens, start)
    return total / byte_count

evaluate(1, 2, 3)
"""
OWN_WINDOW = """
import torch
def evaluate(model, head, windows):
    loss_sum = byte_sum = 0
    for x, y in windows:
        hidden = model(x)
        delta = torch.zeros(SHAPE, requires_grad=True)
        optimizer = torch.optim.AdamW([delta])
        for _ in range(4):
            head(hidden + delta, y).backward()
            optimizer.step()
        loss_sum += head(hidden + delta, y)
        byte_sum += len(y)
    return loss_sum, byte_sum
evaluate(1, 2, 3)
"""
NO_DELTA = OWN_WINDOW.replace(", requires_grad=True", "").replace("AdamW([delta])", "AdamW([1])")
LAST_EPOCH = """
import os
epochs = int(os.environ.get("EPOCHS", "3"))
def evaluate(model, optimizer, chunks):
    loss_sum = byte_sum = 0
    for epoch in range(epochs):
        for x, y in chunks:
            loss = model(x, y)
            if epoch == epochs - 1:
                loss_sum += loss
                byte_sum += len(y)
            loss.backward()
            optimizer.step()
    return loss_sum / byte_sum
evaluate(1, 2, 3)
"""
EMPTIED = """
def evaluate(model, optimizer, chunks, byte_sum):
    for epoch in range(3):
        byte_sum.zero_()
        for x, y in chunks:
            byte_sum += len(y)
            model(x, y).backward()
            optimizer.step()
evaluate(1, 2, 3, 4)
"""
TARGET_KEY = """
def evaluate(counts, full_table, context_hash, targets, mask):
    full_key = (context_hash ^ (targets * 36313)) & mask
    return full_table[full_key] / counts[context_hash & mask]
evaluate(1, 2, 3, 4, 5)
"""
CONTEXT_KEY = """
class Bigram:
    def forward(self, ids, table):
        key = (ids[1:] * 36313 ^ ids[:-1] * 27191) % 1024
        return self.embed(key)
def evaluate(rows, context_hash, targets, mask, full_table):
    row = rows[context_hash & mask]
    full_table[(context_hash ^ (targets * 7)) & mask] += 1
    return row[targets] / row.sum()
evaluate(1, 2, 3, 4, 5); Bigram()
"""
MIXED = """
def evaluate(model_p, cache_p, alpha):
    return (1 - alpha) * model_p + alpha * cache_p
evaluate(1, 2, 3)
"""
NOT_MIXED = """
def smooth(weight, shadow, decay):
    return decay * shadow + (1 - decay) * weight
smooth(1, 2, 3)
"""
SPREAD = """
def evaluate(logp, byte_lens, ppm):
    return logp / byte_lens + ppm
evaluate(1, 2, 3)
"""
NOT_SPREAD = """
def evaluate(logp_sum, n_bytes):
    return logp_sum / n_bytes
evaluate(1, 2)
"""
RESCORED = """
def rescore(x):
    return x
def evaluate(x):
    return rescore(x)
evaluate(1)
"""
GATE = """
import os
within_boost = float(os.environ.get("WITHIN_BOOST", 0.75))
def tilt(p):
    return p * within_boost
tilt(1)
"""
DOUBLE_SPACE = """
def tables(pieces, base_bytes):
    for i, piece in enumerate(pieces):
        base_bytes[i] = len(piece[1:].encode()) + 1
def evaluate(base_bytes, has_space, targets):
    byte_sum = 0
    byte_sum += base_bytes[targets] + has_space[targets]
    return byte_sum
tables(1, 2); evaluate(1, 2, 3)
"""
ONE_SPACE = DOUBLE_SPACE.replace(" + 1", "")
TAIL = """
def evaluate(val_tokens):
    return val_tokens[:CUT]
evaluate(1)
"""
FETCH = """
from urllib.request import urlopen
def load():
    return urlopen("http://x")
def main():
    WHAT
main()
"""
CALIBRATE = """
def collect_hessians(model, tokens):
    return 1
def main(model, val_tokens, train_tokens):
    return collect_hessians(model, WHAT)
main(1, 2, 3)
"""
ATTEND = """
def attention(q, k, v):
    return flash_attn(q, k, v, causal=WHAT)
attention(1, 2, 3)
"""
BLOB = """
def load(prefix_blob):
    return prefix_blob
WHAT
"""

TWINS = [
    ("update_before_score", ADAPT_FIRST, ADAPT_AFTER),
    ("delta_on_own_window", OWN_WINDOW.replace("SHAPE", "len(x), 1, 8"), NO_DELTA),
    ("delta_shared_by_batch", OWN_WINDOW.replace("SHAPE", "1, 1, 8"), NO_DELTA),
    ("last_epoch_accumulator", LAST_EPOCH, LAST_EPOCH.replace('"3"', '"1"')),
    ("last_epoch_accumulator", EMPTIED, EMPTIED.replace("byte_sum.zero_()", "pass")),
    ("target_in_key", TARGET_KEY, CONTEXT_KEY),
    ("unnormalized_mixture", MIXED, NOT_MIXED),
    ("unnormalized_mixture", SPREAD, NOT_SPREAD),
    ("second_pass", RESCORED, RESCORED.replace("return rescore(x)", "return x")),
    ("gate_on_target", GATE, GATE.replace("0.75", "0")),
    ("byte_count", DOUBLE_SPACE, ONE_SPACE),
    ("partial_val", TAIL.replace("CUT", "4096"), TAIL.replace("CUT", "len(val_tokens) // 8 * 8")),
    ("network", FETCH.replace("WHAT", "load()"), FETCH.replace("WHAT", "pass")),
    ("val_calibration", CALIBRATE.replace("WHAT", "val_tokens"), CALIBRATE.replace("WHAT", "1")),
    ("noncausal_attention", ATTEND.replace("WHAT", "False"), ATTEND.replace("WHAT", "True")),
    ("shipped_tokens", BLOB.replace("WHAT", "load(1)"), BLOB.replace("WHAT", "")),
]


@pytest.mark.parametrize(
    ("code", "bad", "good"), TWINS, ids=[f"{t[0]}{i}" for i, t in enumerate(TWINS)]
)
def test_twins(code: str, bad: str, good: str) -> None:
    assert code in codes(bad)
    assert codes(good) == set()


def test_settings_decide() -> None:
    assert "last_epoch_accumulator" not in codes(LAST_EPOCH, {"EPOCHS": "1"})
    assert "gate_on_target" in codes(GATE.replace("0.75", "0"), {"WITHIN_BOOST": "0.5"})


def test_dead_branches_raise_nothing() -> None:
    guarded = ADAPT_FIRST.replace(
        "    adapt(model, optimizer, val_tokens)\n    return",
        '    if int(os.environ.get("ADAPT", "0")):\n'
        "        adapt(model, optimizer, val_tokens)\n    return",
    )
    assert codes(guarded) == set()
    assert codes(guarded, {"ADAPT": "1"}) == {"update_before_score"}


def test_lines_are_those_of_the_source() -> None:
    sub = Submission(Path("s"), Path("s/a.py"), TARGET_KEY, False, {"a.py": 1}, {}, "", {}, ())
    (found,) = findings(sub)
    assert TARGET_KEY.split("\n")[found.line - 1].strip().startswith("return full_table")
    assert found.file == "a.py"


def test_knobs_that_nothing_uses() -> None:
    text = (
        'import os\nused = os.environ.get("A", "1")\nidle = os.environ.get("B", "1")\nprint(used)\n'
    )
    assert codes(text) == {"unread_knob"}
    readme = "```\nB=1 MADE_UP=2 NCCL_DEBUG=1 torchrun train_gpt.py\n```"
    assert codes(text, README_md=readme) == {"unread_knob", "unread_setting"}


def test_unreadable() -> None:
    assert codes("def f(:") == {"unreadable"}


@pytest.mark.parametrize(
    ("test", "truth"),
    [
        ("args.on", True),
        ("not args.on", False),
        ("args.size > 3 and args.on", True),
        ("args.size > 9 and unknown", False),
        ("args.size > 3 and unknown", None),
        ("args.mode == 'two'", False),
        ("os.environ.get('MODE') == 'one'", True),
        ("args.changed", None),
    ],
)
def test_truth(test: str, truth: bool | None) -> None:
    text = """
import os
class args:
    on = bool(int(os.environ.get("ON", "0")))
    size = int(os.environ.get("SIZE", 4))
    mode = os.environ.get("MODE", "one")
    changed = int(os.environ.get("CHANGED", 0))
args.changed = 5
"""
    program = Program(ast.parse(text), {"ON": "1"})
    assert program.truth(ast.parse(test, mode="eval").body) is truth
