"""A submission as handed in: the script, decoded; the files beside it; the settings of its run."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from underpar.audit.decode import Reader, modernise, plain_source, syntax_error
from underpar.audit.facts import Submission
from underpar.audit.settings import headline_settings
from underpar.errors import DataError

#: Larger scripts and documents are not read.
MAX_SCRIPT = 8_000_000
MAX_DOCUMENT = 4_000_000
MAX_FILES = 2000

#: What the scorer may open beside itself.
SIBLING_SUFFIXES = frozenset(
    [
        ".py",
        ".c",
        ".cc",
        ".cpp",
        ".cu",
        ".cuh",
        ".h",
        ".hpp",
        ".json",
        ".model",
        ".vocab",
        ".lzma",
        ".xz",
        ".so",
        ".toml",
        ".yaml",
        ".npy",
    ]
)
_DOCUMENTS = frozenset([".md", ".json", ".log", ".txt", ".out", ".sh"])
_SKIPPED = frozenset((".git", "__pycache__", ".venv", "venv", "node_modules", "wandb"))
_STUB_SHARE = 3


def read(path: Path | str) -> Submission:
    """Read a folder or a script inside one. Nothing of it is executed.

    A script that only starts a sibling is followed: `script` is then the sibling. Raises DataError
    if there is no such path, no script in the folder, or the script is not a file of text.
    """
    given = Path(path)
    if not given.exists():
        raise DataError("submission", got=f"'{given}'", wanted="a folder or a Python script")
    script = given if given.is_file() else _script_in(given)
    root = _root_of(script, given)
    names = _listing(root, script)
    documents = _documents(root, names)
    source, packed, notes = _decoded(script)
    behind = _stub_target(script, source)
    defaults: dict[str, str] = {}
    if behind is not None:
        notes.append(f"{script.name} starts {behind.name}")
        defaults = _environment_defaults(source)
        script = behind
        source, packed, more = _decoded(script)
        notes += more
    settings = headline_settings(source, documents)
    return Submission(
        root=root,
        script=script,
        source=source,
        packed=packed,
        files={name: (root / name).stat().st_size for name in names},
        settings=defaults | settings.values,
        settings_from=settings.origin,
        documents=documents,
        notes=(*notes, *settings.notes),
    )


def siblings(sub: Submission) -> dict[str, bytes]:
    """Files that the script may open, by their name relative to the script's folder.

    Python siblings are given so that this interpreter can import them.
    """
    out: dict[str, bytes] = {}
    folder = sub.script.parent
    for name, size in sub.files.items():
        path = sub.root / name
        if path == sub.script or path.suffix not in SIBLING_SUFFIXES or size > MAX_DOCUMENT:
            continue
        if not path.is_relative_to(folder):
            continue
        data = path.read_bytes()
        if path.suffix == ".py":
            data = modernise(plain_source(data, path.name, _reader(path.parent)).source).encode()
        out[path.relative_to(folder).as_posix()] = data
    return out


def _script_in(folder: Path) -> Path:
    """The script of a folder: `train_gpt.py`, or the largest script that prints a score."""
    usual = folder / "train_gpt.py"
    if usual.is_file():
        return usual
    scripts = sorted(folder.glob("*.py"), key=lambda p: -p.stat().st_size)
    scoring = [p for p in scripts if b"bpb" in p.read_bytes() or b"exec(" in p.read_bytes()]
    if not scoring:
        got = f"'{folder}' with {len(scripts)} Python files"
        raise DataError("submission folder", got=got, wanted="train_gpt.py or a script that scores")
    return scoring[0]


def _root_of(script: Path, given: Path) -> Path:
    """The submission folder: the script's own, or the one above if that holds the documents."""
    if given.is_dir():
        return given
    folder = script.parent
    if not _has_documents(folder) and _has_documents(folder.parent) and not _is_repository(folder):
        return folder if _is_repository(folder.parent) else folder.parent
    return folder


def _has_documents(folder: Path) -> bool:
    return (folder / "submission.json").is_file() or (folder / "README.md").is_file()


def _is_repository(folder: Path) -> bool:
    """A whole repository: its README is not the submission's."""
    return (folder / "records").is_dir() or (folder / ".git").exists()


def _listing(root: Path, script: Path) -> list[str]:
    """Relative names of the files handed in."""
    if _is_repository(root):
        return [script.relative_to(root).as_posix()]
    names: list[str] = []
    folders = [root]
    while folders and len(names) < MAX_FILES:
        for path in sorted(folders.pop(0).iterdir()):
            if path.is_symlink() or path.name.startswith(".") or path.name in _SKIPPED:
                continue
            if path.is_dir():
                folders.append(path)
            elif path.is_file():
                names.append(path.relative_to(root).as_posix())
    return names[:MAX_FILES]


def _documents(root: Path, names: list[str]) -> dict[str, str]:
    out: dict[str, str] = {}
    for name in names:
        path = root / name
        if path.suffix in _DOCUMENTS and path.stat().st_size <= MAX_DOCUMENT:
            out[name] = path.read_text(encoding="utf-8", errors="replace")
    return out


def _decoded(script: Path) -> tuple[str, bool, list[str]]:
    if script.stat().st_size > MAX_SCRIPT:
        raise DataError("script", got=f"{script.stat().st_size} bytes", wanted=f"{MAX_SCRIPT}")
    data = script.read_bytes()
    if b"\0" in data:
        raise DataError("script", got=f"'{script.name}' with zero bytes", wanted="Python text")
    found = plain_source(data, script.name, _reader(script.parent))
    notes = list(found.notes)
    if found.layers:
        notes.insert(0, f"unpacked: {found.layers} layers, {len(found.source)} characters")
    notes += [f"payload read from {name}" for name in found.used]
    return found.source, found.packed, notes


def _reader(folder: Path) -> Reader:
    def read_beside(name: str) -> bytes | None:
        path = folder / name
        if path.is_symlink() or not path.is_file() or path.stat().st_size > MAX_SCRIPT:
            return None
        return path.read_bytes()

    return read_beside


def _stub_target(script: Path, source: str) -> Path | None:
    """The sibling that a short script imports or starts, if it is the one that does the work."""
    if syntax_error(source) is not None or "backward" in source:
        return None
    tree = ast.parse(source)
    wanted = [n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module]
    wanted += [a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names]
    texts = [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant)]
    wanted += [t[:-3] for t in texts if isinstance(t, str) and re.fullmatch(r"[\w./-]+\.py", t)]
    found = [script.parent / (name.replace(".", "/") + ".py") for name in wanted]
    larger = [
        path
        for path in found
        if path.is_file()
        and path != script
        and path.stat().st_size > _STUB_SHARE * len(source)
        and b"backward" in path.read_bytes()
    ]
    return larger[0] if larger else None


def _environment_defaults(source: str) -> dict[str, str]:
    """`os.environ.setdefault("A", "b")` and `os.environ["A"] = "b"` with literal values."""
    out: dict[str, str] = {}
    for node in ast.walk(ast.parse(source)):
        pair: tuple[ast.expr, ast.expr] | None = None
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("environ.setdefault"):
            pair = (node.args[0], node.args[1]) if len(node.args) == 2 else None
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Subscript):
            target = node.targets[0]
            if ast.unparse(target.value).endswith("environ"):
                pair = target.slice, node.value
        if pair and all(isinstance(item, ast.Constant) for item in pair):
            out[str(ast.literal_eval(pair[0]))] = str(ast.literal_eval(pair[1]))
    return out
