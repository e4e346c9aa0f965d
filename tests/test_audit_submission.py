"""Reading a submission: its script, its siblings, and the settings of the headline run."""

import ast
import base64
import json
import lzma
from pathlib import Path

import pytest

from underpar.audit.knobs import as_cast, knobs, spell
from underpar.audit.settings import unread
from underpar.audit.submission import read, siblings
from underpar.errors import DataError

SCRIPT = """
import os
class Config:
    rate = float(os.environ.get("RATE", 0.1))
    epochs = int(os.environ.get("EPOCHS", "1"))
    adapt = bool(int(os.environ.get("ADAPT", "0")))
    loops = os.environ.get("LOOPS", "1,2")
    data_path = os.environ.get("DATA_PATH", "./data")
rank = int(os.environ.get("RANK", "0"))
def main():
    args = Config()
    print(f"adaptation: on={args.adapt} passes {args.epochs}")
    print(f"val_loss:{1.0} val_bpb:{2.0} backward")
"""
README = """# A run

```bash
pip install torch
```

```bash
RATE=0.5 EPOCHS=3 LOOPS="3,4" OTHER=1 DATA_PATH=/tmp/x RANK=3 \\
torchrun --standalone train_gpt.py
```
"""
LOG = """Hyperparameters:
  rate: 0.25
  loops: [3, 4]
  data_path: /home/me
adaptation: on=True passes 3
final val_loss:2.5 val_bpb:1.5
"""


def folder(root: Path, **files: str) -> Path:
    root.mkdir(exist_ok=True, parents=True)
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_py", ".py").replace("_md", ".md")
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(text)
    return root


def test_settings_of_a_command(tmp_path) -> None:
    sub = read(folder(tmp_path / "s", train_gpt_py=SCRIPT, README_md=README))
    assert sub.settings == {"RATE": "0.5", "EPOCHS": "3", "LOOPS": "3,4"}
    assert sub.settings_from == "README.md"
    assert unread(sub.documents, sub.source) == {"OTHER": "README.md"}


def test_the_log_is_the_better_witness(tmp_path) -> None:
    root = folder(tmp_path / "s", train_gpt_py=SCRIPT, README_md=README)
    (root / "train_seed1.log").write_text(SCRIPT + LOG)
    sub = read(root)
    assert sub.settings == {"RATE": "0.25", "EPOCHS": "3", "LOOPS": "3,4", "ADAPT": "1"}
    assert sub.settings_from == "train_seed1.log and README.md"
    assert sub.notes == ("RATE: README.md says 0.5, train_seed1.log says 0.25",)


def test_the_log_of_the_headline_is_taken(tmp_path) -> None:
    root = folder(tmp_path / "s", train_gpt_py=SCRIPT)
    (root / "submission.json").write_text(json.dumps({"val_bpb": 1.2}))
    (root / "train_a.log").write_text("  rate: 0.3\nfinal val_loss:2.5 val_bpb:1.5\n")
    (root / "train_b.log").write_text("rate:0.7 x\nfinal val_loss:2.0 val_bpb:1.2001\n")
    assert read(root).settings == {"RATE": "0.7"}


def test_shell_script(tmp_path) -> None:
    root = folder(tmp_path / "s", train_gpt_py=SCRIPT)
    (root / "run.sh").write_text('RATE="${RATE:-0.9}"\nEPOCHS=$N\npython train_gpt.py\n')
    assert read(root).settings == {"RATE": "0.9"}


def test_script_given_by_path_reads_its_folder(tmp_path) -> None:
    root = folder(tmp_path / "s", train_gpt_py="x = 1", other_py=SCRIPT, README_md=README)
    sub = read(root / "other.py")
    assert sub.script == root / "other.py"
    assert set(sub.files) == {"train_gpt.py", "other.py", "README.md"}
    assert sub.settings["EPOCHS"] == "3"


def test_script_in_a_subfolder_finds_the_documents(tmp_path) -> None:
    root = folder(tmp_path / "s", README_md=README, plain__train_gpt_py=SCRIPT)
    sub = read(root / "plain" / "train_gpt.py")
    assert sub.root == root
    assert "README.md" in sub.documents


def test_a_repository_is_not_a_submission(tmp_path) -> None:
    root = folder(tmp_path / "s", train_gpt_py=SCRIPT, README_md=README, records__a_md="x")
    sub = read(root / "train_gpt.py")
    assert set(sub.files) == {"train_gpt.py"}
    assert sub.documents == {}


def test_stub_is_followed(tmp_path) -> None:
    stub = 'import os\nos.environ.setdefault("EPOCHS", "4")\nfrom work import main\nmain()\n'
    root = folder(tmp_path / "s", train_gpt_py=stub, work_py=SCRIPT)
    sub = read(root)
    assert sub.script.name == "work.py"
    assert sub.settings == {"EPOCHS": "4"}
    assert "train_gpt.py starts work.py" in sub.notes


def test_packed_script_and_siblings(tmp_path) -> None:
    def pack(text: str) -> str:
        body = base64.b85encode(lzma.compress(text.encode())).decode()
        return f'import lzma, base64\nexec(lzma.decompress(base64.b85decode("{body}")))\n'

    root = folder(tmp_path / "s", train_gpt_py=pack(SCRIPT), lib_py=pack("Y = 2\n"))
    (root / "state.c").write_text("int x;")
    sub = read(root)
    assert sub.packed
    assert sub.source == SCRIPT
    assert sub.files["train_gpt.py"] < len(SCRIPT) * 3
    assert siblings(sub) == {"lib.py": b"Y = 2\n", "state.c": b"int x;"}


def test_links_are_not_followed(tmp_path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("bpb")
    root = folder(tmp_path / "s", train_gpt_py=SCRIPT)
    (root / "link.txt").symlink_to(secret)
    assert set(read(root).files) == {"train_gpt.py"}


@pytest.mark.parametrize("content", [b"\0\1", b""])
def test_refusals(tmp_path, content: bytes) -> None:
    with pytest.raises(DataError):
        read(tmp_path / "nowhere")
    with pytest.raises(DataError):
        read(tmp_path)
    path = tmp_path / "train_gpt.py"
    path.write_bytes(content)
    if content:
        with pytest.raises(DataError, match="zero bytes"):
            read(path)
    else:
        assert read(path).source == ""


def test_knobs_through_helpers() -> None:
    text = """
import os
def env_bool(name, default=False):
    return os.environ.get(name, str(default)) == "1"
get = os.environ.get
a = env_bool("A_FLAG", True)
b = get("B_NAME", "x")
c: int = int(os.getenv("C_SIZE", 3))
d = dict(e=os.environ["E_PATH"])
"""
    found = {k.name: (k.attribute, k.default, k.cast) for k in knobs(ast.parse(text))}
    assert found == {
        "A_FLAG": ("a", "1", "bool"),
        "B_NAME": ("b", "x", ""),
        "C_SIZE": ("c", "3", "int"),
        "E_PATH": ("e", None, ""),
    }


def test_spelling() -> None:
    assert [spell(v) for v in (True, [3, 4], None, 0.5)] == ["1", "3,4", "", "0.5"]
    assert as_cast("True", "int") == "1"
    assert as_cast("3.0", "int") == "3"
    assert as_cast("3.5", "int") is None
    assert as_cast("text", "float") is None


SWITCHED = """
import os
class Config:
    pair = bool(int(os.environ.get("NGRAM_TWO_PASS", "0")))
    mix = bool(int(os.environ.get("NGRAM_ENABLED", "0")))
    other = bool(int(os.environ.get("NGRAM_PAQ_MODE", "0")))
    adapt = int(os.environ.get("TTT_ENABLED", "0"))
    order = int(os.environ.get("NGRAM_ORDER", "9"))
    spare = bool(int(os.environ.get("WEIGHT_DECAY_ENABLED", "0")))
def main():
    print("backward bpb")
"""


@pytest.mark.parametrize(
    "readme",
    [
        "# Two-pass N-gram cache with weight decay\n",
        "# A run\n## Method\n- n-grams in two passes\n",
    ],
)
def test_documents_without_log_and_command_name_switches(tmp_path, readme: str) -> None:
    readme += "- No TTT.\n## What failed\n- TTT\n## Related work\n- PAQ n-gram mixing\n"
    sub = read(folder(tmp_path / "s", train_gpt_py=SWITCHED, README_md=readme))
    assert sub.settings == {"NGRAM_TWO_PASS": "1", "NGRAM_ENABLED": "1"}
    assert "words" in sub.settings_from
    assert any("NGRAM_TWO_PASS=1" in note for note in sub.notes)


def test_a_command_is_believed_before_words(tmp_path) -> None:
    readme = "# Two-pass N-gram cache\n```\nNGRAM_ENABLED=1 torchrun train_gpt.py\n```\n"
    sub = read(folder(tmp_path / "s", train_gpt_py=SWITCHED, README_md=readme))
    assert sub.settings == {"NGRAM_ENABLED": "1"}


def test_settings_in_running_text_and_metadata(tmp_path) -> None:
    readme = "# A run\nUses `NGRAM_ORDER=12`, not `TTT_ENABLED=1`.\n\nOnly `NGRAM_ORDER=12`.\n"
    files = folder(tmp_path / "s", train_gpt_py=SWITCHED, README_md=readme)
    (files / "submission.json").write_text(json.dumps({"config": {"NGRAM_ENABLED": True}}))
    assert read(files).settings == {"NGRAM_ORDER": "12", "NGRAM_ENABLED": "1"}


def test_a_flag_glued_to_the_next_line_of_a_log() -> None:
    assert as_cast("Truestep:1", "bool") == "1"
    assert as_cast("Falsely", "") == "0"


def test_a_setting_that_only_a_switch_uses_turns_the_switch_on(tmp_path) -> None:
    script = """
import os
class Config:
    looped = bool(int(os.environ.get("LOOPED", "0")))
    loops = int(os.environ.get("LOOPS", "2"))
    rate = float(os.environ.get("RATE", "0.1"))
    spare = bool(int(os.environ.get("SPARE", "0")))
def main(args):
    print(f"loops={args.loops}", "backward bpb")
    if args.looped and args.rate > 0:
        return args.loops * args.rate
    if args.spare:
        return 0.5 * args.rate
    return args.rate
"""
    given = "```\n{} torchrun train_gpt.py\n```\n"
    wanted = {
        "LOOPS=4 RATE=0.2": {"LOOPS": "4", "RATE": "0.2", "LOOPED": "1"},
        "LOOPS=2 RATE=0.2": {"RATE": "0.2"},
        "LOOPS=4 LOOPED=0": {"LOOPS": "4"},
    }
    for number, (command, settings) in enumerate(wanted.items()):
        readme = given.format(command)
        sub = read(folder(tmp_path / f"s{number}", train_gpt_py=script, README_md=readme))
        assert sub.settings == settings, command
