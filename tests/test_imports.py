"""The shape of the package: who may import whom, and the few bans that keep it honest.

A module may import its own folder and folders of lower rank, nothing else, wherever in the file the
import stands; inside the functions of ``cli`` anything lower is allowed, which the rank says too.
"""

from __future__ import annotations

import ast
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

import underpar
from tests import children

ROOT = Path(underpar.__file__).parent

RANKS = {
    "errors": 0,
    "dist": 1,
    "bits": 1,  # below recipes, whose budget has the default that is stated there
    **dict.fromkeys(("progress", "storage", "stages", "recipe", "entropy", "grid"), 2),
    "data": 3,
    "model": 4,
    "train": 5,
    "quant": 6,
    "artifact": 7,
    "score": 8,
    "report": 9,
    **dict.fromkeys(("codec", "submit", "audit"), 10),
    "pipeline": 11,
    **dict.fromkeys(("rerun", "standalone", "ship"), 12),
    "cli": 13,
    "__main__": 14,
    "__init__": 14,
}

#: The auditor's sandboxed child runs other people's torch code, in an environment made for it.
CHILD = "audit/child/"
#: The lines that unpack and run a packed program; read as text, never imported.
UNPACK = "ship/unpack.py"
LONGEST_FILE, LONGEST_FUNCTION = 300, 60  # lines; of a function without its docstring


@dataclass(frozen=True)
class Module:
    path: Path

    @property
    def name(self) -> str:
        return self.path.relative_to(ROOT).as_posix()

    @property
    def room(self) -> str:
        """Its folder, or the file itself at the top: the key in RANKS."""
        return Path(self.name).parts[0].removesuffix(".py")

    @property
    def source(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @property
    def tree(self) -> ast.Module:
        return _parsed(self.path)

    @property
    def nodes(self) -> tuple[ast.AST, ...]:
        return _walked(self.path)

    def imports(self) -> Iterator[str]:
        """Full names of everything it imports, at any depth: 'underpar.data.shards.read_shard'."""
        for node in self.nodes:
            yield from self._names(node)

    def imports_at_top(self) -> Iterator[str]:
        """The same, but of what runs on import: not in functions, not for the type checker only."""
        todo: list[ast.AST] = list(self.tree.body)
        while todo:
            node = todo.pop()
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                todo += node.orelse
                continue
            yield from self._names(node)
            todo += ast.iter_child_nodes(node)

    def _names(self, node: ast.AST) -> Iterator[str]:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = ["underpar", *Path(self.name).parent.parts] if node.level else []
            base = parts[: len(parts) - node.level + 1] + ([node.module] if node.module else [])
            yield from (".".join([*base, alias.name]) for alias in node.names)


@cache
def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def _walked(path: Path) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(_parsed(path)))


MODULES = [Module(path) for path in sorted(ROOT.rglob("*.py"))]
each_module = pytest.mark.parametrize("module", MODULES, ids=lambda m: m.name)


def rooms_imported(names: Iterator[str]) -> set[str]:
    """Rooms of the package among imported names; its own attributes (__version__) are none."""
    rooms = {name.split(".")[1] for name in names if name.startswith("underpar.")}
    return {room for room in rooms if not room.startswith("__")}


@each_module
def test_every_import_goes_down(module: Module) -> None:
    assert module.room in RANKS, f"{module.room} has no rank: give it one here and in the design"
    for room in rooms_imported(module.imports()) - {module.room}:
        assert RANKS[room] < RANKS[module.room], f"{module.name} imports {room}: not of lower rank"


def test_no_imports_go_in_a_circle() -> None:
    """Among modules, wherever the import stands: in a function or for the type checker, too."""
    found = [" -> ".join(circle) for circle in sorted(circles(imported_modules(MODULES)))]
    assert not found, "modules that import each other:\n" + "\n".join(found)


def imported_modules(modules: list[Module]) -> dict[str, set[str]]:
    """Dotted names: module -> modules that it names in its imports (a package is its __init__)."""
    names = {m: f"underpar.{m.name}".removesuffix(".py").replace("/", ".") for m in modules}
    names = {m: name.removesuffix(".__init__") for m, name in names.items()}
    graph: dict[str, set[str]] = {name: set() for name in names.values()}
    for module, name in names.items():
        for imported in module.imports():
            here = imported if imported in graph else imported.rpartition(".")[0]  # of an object
            graph[name] |= {here} & set(graph) - {name}
    return graph


def circles(graph: dict[str, set[str]]) -> set[tuple[str, ...]]:
    """The shortest way of each module back to itself, closed, from its first name in order on."""
    found = set()
    for start in graph:
        ways, seen = [(start,)], {start}
        for way in ways:  # which grows: the shortest come first
            if start in graph[way[-1]]:
                first = way.index(min(way))
                found.add((*way[first:], *way[:first], way[first]))
                break
            ways += [(*way, to) for to in sorted(graph[way[-1]] - seen)]
            seen |= graph[way[-1]]
    return found


@each_module
def test_score_and_codec_know_nothing_of_training(module: Module) -> None:
    if module.room in ("score", "codec"):
        assert not rooms_imported(module.imports()) & {"train", "quant"}


@pytest.mark.parametrize("room", ["recipe", "entropy", "report", "audit"])
def test_rooms_without_torch(room: str) -> None:
    """Importing all of the room leaves torch alone: by the source, and by running it."""
    modules = [m for m in MODULES if m.room == room and not m.name.startswith(CHILD)]
    for module in modules:
        at_top = {name.split(".")[0] for name in module.imports_at_top()}
        assert "torch" not in at_top, f"{module.name} imports torch at module level"
    names = [m.name.removesuffix(".py").removesuffix("/__init__") for m in modules]
    names = [name.replace("/", ".") for name in names]
    code = "".join(f"import underpar.{name}\n" for name in names)
    check = code + "import sys; sys.exit('torch' in sys.modules)"
    done = children.python("-c", check, code=None)
    assert done.code == 0, done.err or f"importing underpar.{room} imports torch"


@each_module
def test_only_dist_reads_the_environment(module: Module) -> None:
    if module.name == "dist.py" or module.name.startswith(CHILD):
        return
    reads = {"environ", "environb", "getenv", "getenvb"}
    for node in module.nodes:
        if isinstance(node, ast.Attribute):
            assert not (node.attr in reads and ast.unparse(node.value) == "os"), module.name
    assert not {name for name in module.imports() if name.removeprefix("os.") in reads}


@each_module
def test_nothing_executes_data(module: Module) -> None:
    """No pickle and no torch.load anywhere; exec and eval only where running code is the job."""
    banned = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "joblib"}
    assert not {name.split(".")[0] for name in module.imports()} & banned, module.name
    assert "torch.load" not in module.imports()
    for node in module.nodes:
        if not isinstance(node, ast.Call):
            continue
        called = getattr(node.func, "id", getattr(node.func, "attr", ""))
        if called == "load":
            assert ast.unparse(node.func) != "torch.load", f"{module.name}:{node.lineno}"
        if called in ("exec", "eval") and isinstance(node.func, ast.Name):
            allowed = module.name.startswith(CHILD) or module.name == UNPACK
            assert allowed, f"{module.name}:{node.lineno}"


@each_module
def test_no_program_in_a_string(module: Module) -> None:
    """Source code is a file: text is seen by no type checker, no linter and none of these tests."""
    texts = (node for node in module.nodes if isinstance(node, ast.Constant))
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docs = {ast.get_docstring(n, False) for n in module.nodes if isinstance(n, documented)}
    for node in texts:
        if isinstance(node.value, str) and "\n" in node.value and node.value not in docs:
            assert not is_program(node.value), f"{module.name}:{node.lineno}"


def is_program(text: str) -> bool:
    """Whether a text is python that defines, imports or assigns something."""
    try:
        body = ast.parse(textwrap.dedent(text)).body
    except SyntaxError:
        return False
    does = (ast.FunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom, ast.For, ast.With)
    return any(isinstance(node, does) for node in body)


@each_module
def test_only_the_command_line_and_progress_print(module: Module) -> None:
    if module.room in ("cli", "progress", "__main__"):
        return
    for node in module.nodes:
        if isinstance(node, ast.Call):
            assert ast.unparse(node.func) != "print", f"{module.name}:{node.lineno}"


@each_module
def test_files_and_functions_stay_readable(module: Module) -> None:
    lines = len(module.source.splitlines())
    assert lines <= LONGEST_FILE, f"{module.name}: {lines} lines"
    for node in module.nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            length -= len((ast.get_docstring(node, clean=False) or "").splitlines())
            assert length <= LONGEST_FUNCTION, f"{module.name}: {node.name} has {length} lines"


#: Lines that the rooms may have together; what needs more says in docs/design.md what it bought.
BUDGETS = {
    ("errors", "bits", "dist", "progress", "storage", "stages"): 610,
    ("pipeline", "standalone", "rerun"): 600,
    ("cli",): 1_370,  # 270 of them draw: see docs/design.md
    ("recipe",): 1_400,
    ("grid", "entropy"): 1_200,
    ("data",): 2_400,
    ("model",): 1_300,
    ("train",): 1_800,
    ("quant",): 900,
    ("artifact",): 1_210,
    ("score",): 1_400,
    ("codec",): 1_500,
    ("report",): 2_900,
    ("submit",): 1_400,
    ("ship",): 1_400,
}


@pytest.mark.parametrize("rooms", BUDGETS, ids="+".join)
def test_rooms_stay_within_their_lines(rooms: tuple[str, ...]) -> None:
    lines = sum(len(module.source.splitlines()) for module in MODULES if module.room in rooms)
    assert lines <= BUDGETS[rooms]


def test_the_checks_themselves_can_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each ban, broken on purpose in a file of its own, is seen."""
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    breaks = {
        test_every_import_goes_down: "def f():\n    from underpar.cli import main",
        test_only_dist_reads_the_environment: "from os import environ",
        test_nothing_executes_data: "def f(x):\n    return eval(x)",
        test_no_program_in_a_string: "X = '\\ndef f():\\n    return 1\\n'",
        test_only_the_command_line_and_progress_print: "def f():\n    print(1)",
        test_files_and_functions_stay_readable: "def f():\n" + "    pass\n" * 60,
    }
    (tmp_path / "data").mkdir()
    for i, (check, source) in enumerate(breaks.items()):
        path = tmp_path / "data" / f"bad{i}.py"
        path.write_text(source)
        with pytest.raises(AssertionError):
            check(Module(path))
    path = tmp_path / "data" / "top.py"
    path.write_text("import torch\ndef f():\n    import lzma\nif TYPE_CHECKING:\n    import gzip")
    assert list(Module(path).imports_at_top()) == ["torch"]
    path = tmp_path / "data" / "relative.py"
    path.write_text("from . import shards\nfrom .. import bits\nfrom ..bits import Score")
    assert set(Module(path).imports()) == {
        "underpar.data.shards",
        "underpar.bits",
        "underpar.bits.Score",
    }
    bad = {
        "one": "def f():\n    from underpar.data.two import X",
        "two": "if TYPE_CHECKING:\n    from . import three",
        "three": "import underpar.data.one",
        "four": "from underpar.data import one, four",
    }
    for name, source in bad.items():
        (tmp_path / "data" / f"{name}.py").write_text(source)
    graph = imported_modules([Module(tmp_path / "data" / f"{name}.py") for name in bad])
    circle = ("one", "two", "three", "one")
    assert circles(graph) == {tuple(f"underpar.data.{name}" for name in circle)}
