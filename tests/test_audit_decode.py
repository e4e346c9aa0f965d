"""Wrappers are opened without running them, and 3.12 f-strings mean what they meant."""

import base64
import bz2
import lzma
import sys
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from underpar.audit.decode import DEPTH, modernise, parses, plain_source
from underpar.audit.fstrings import rewrite_fstrings
from underpar.audit.inflate import LIMIT, Unknown, bounded_decompress

PAYLOAD = 'import os\nRATE = float(os.environ.get("RATE", 0.1))\nprint(RATE)\n'
RAW = [{"id": lzma.FILTER_LZMA2}]


def pack(kind: str, text: str = PAYLOAD) -> str:
    data = text.encode()
    if kind == "raw":
        squeezed = lzma.compress(data, format=lzma.FORMAT_RAW, filters=RAW)
        body = base64.b85encode(squeezed).decode()
        return (
            "import lzma as L, base64 as B\n"
            f'exec(L.decompress(B.b85decode("{body}"), format=L.FORMAT_RAW, '
            'filters=[{"id": L.FILTER_LZMA2}]))\n'
        )
    if kind == "zlib":
        body = base64.b64encode(zlib.compress(data)).decode()
        return f'import zlib, base64\nexec(zlib.decompress(base64.b64decode("{body}")))\n'
    if kind == "bz2 lines":
        body = base64.b85encode(bz2.compress(data)).decode()
        broken = "\n".join(body[i : i + 40] for i in range(0, len(body), 40))
        return (
            f'import bz2\nfrom base64 import b85decode\n_b = b"""\n{broken}\n"""\n'
            'exec(bz2.decompress(b85decode(_b.replace(b"\\n", b""))).decode("utf-8"))\n'
        )
    body = base64.b85encode(lzma.compress(data)).decode()
    return (
        "import base64, lzma, linecache\n"
        "globals()['__file__'] = 'train_gpt.py'\n"
        f"_src = lzma.decompress(base64.b85decode(b'{body}')).decode()\n"
        "linecache.cache['train_gpt.py'] = (len(_src), None, _src.splitlines(True), 'x')\n"
        "exec(compile(_src, 'train_gpt.py', 'exec'))\n"
    )


@pytest.mark.parametrize("kind", ["raw", "zlib", "bz2 lines", "compiled"])
def test_wrapper(kind: str) -> None:
    found = plain_source(pack(kind))
    assert (found.source, found.layers, found.notes) == (PAYLOAD, 1, ())


def test_nested_wrappers() -> None:
    found = plain_source(pack("raw", pack("zlib", pack("compiled"))))
    assert (found.source, found.layers) == (PAYLOAD, 3)


def test_endless_nesting_ends() -> None:
    text = PAYLOAD
    for _ in range(DEPTH + 2):
        text = pack("zlib", text)
    assert "wrapped more than" in plain_source(text).notes[-1]


def test_plain_source_stays() -> None:
    assert plain_source(PAYLOAD).source == PAYLOAD
    assert not plain_source(PAYLOAD).packed


def test_what_a_wrapper_sets_stays_in_front() -> None:
    future = "from __future__ import annotations\nX = 1\n"
    text = 'import os\nos.environ.setdefault("RATE", "1e-3")\n' + pack("raw", future)
    lines = plain_source(text).source.split("\n")
    assert lines[0] == "from __future__ import annotations"
    assert "os.environ.setdefault('RATE', '1e-3')" in lines
    assert lines.index("X = 1") > lines.index("os.environ.setdefault('RATE', '1e-3')")


def test_small_constants_stay() -> None:
    assert "SIZE = 23\n" + PAYLOAD in plain_source("SIZE = 23\n" + pack("zlib")).source


def test_payload_in_a_sibling() -> None:
    files = {"train_gpt.py.lzma": lzma.compress(PAYLOAD.encode()), "real.py": PAYLOAD.encode()}
    by_path = (
        "import lzma, pathlib\n"
        "s = lzma.decompress(pathlib.Path(__file__).with_suffix('.py.lzma').read_bytes())\n"
        "exec(compile(s, __file__, 'exec'))\n"
    )
    by_open = "exec(open(__file__.replace('train_gpt.py', 'real.py')).read())"
    by_runpy = "import runpy\nrunpy.run_path('real.py')"
    for text, name in ((by_path, "train_gpt.py.lzma"), (by_open, "real.py"), (by_runpy, "real.py")):
        found = plain_source(text, "train_gpt.py", files.get)
        assert (found.source, found.used) == (PAYLOAD, (name,))


def test_no_file_outside_of_the_folder() -> None:
    asked: list[str] = []

    def read(name: str) -> None:
        asked.append(name)

    for path in ("../secret.py", "/etc/passwd", "a/../../b.py"):
        found = plain_source(f"exec(open({path!r}).read())", read=read)
        assert not found.packed
    assert asked == []


def test_nothing_is_executed(tmp_path) -> None:
    mark = tmp_path / "ran"
    text = f"import pathlib\nexec(pathlib.Path({str(mark)!r}).touch() or 'x = 1')\n"
    assert not plain_source(text).packed
    assert not mark.exists()


@pytest.mark.parametrize("kind", ["lzma", "zlib", "bz2"])
def test_bomb(kind: str) -> None:
    tools = {"lzma": lzma.compress, "zlib": zlib.compress, "bz2": bz2.compress}
    with pytest.raises(Unknown, match="larger"):
        bounded_decompress(kind, tools[kind](bytes(LIMIT + 1)))
    assert len(bounded_decompress(kind, tools[kind](bytes(LIMIT)))) == LIMIT


def test_bomb_of_text() -> None:
    for text in ("'a' * 10**9", "('a' * 10**6).replace('a', 'b' * 10**6)", "b'x' * 9_000_000"):
        assert not plain_source(f"exec({text})").packed


def test_lzma_dictionary_is_bounded() -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 31}]
    with pytest.raises(Unknown, match="dictionary"):
        bounded_decompress("lzma", b"x", format=lzma.FORMAT_RAW, filters=filters)


FORMATS = [
    'f"{d["k"]}"',
    'f"{d["k"]!r:>{w}}|"',
    'f"{"\\n".join(l)}"',
    "f'{', '.join(f'{x!r}' for x in l)}'",
    'f"{{}}{d["k"]}{{"',
    'f"{d["k"]=}"',
    'f"{w=:>5}{d["k"] = !s}"',
    '"a" f"{d["k"]}" "{b}"',
    'f"{w if d["k"] != "v" else "==":^7}"',
    'rf"\\d{d["k"]}"',
    'f"{d["k"]}\\N{BULLET}\\t"',
    'f"{(lambda q: d["k"] + q)("z")}"',
    'f"""{d["k"]} {d[\'k\']}\n"""',
    'f"{\nd["k"]\n}"',
    'f"{d["k"] # why\n}"',
    'f"{d["k"]:{"<" if w else ">"}{w}}"',
]
NAMES = {"d": {"k": "v"}, "w": 6, "l": ["a", "b"]}


@pytest.mark.parametrize("text", FORMATS)
def test_f_strings_keep_their_value(text: str) -> None:
    new = rewrite_fstrings(text)
    value = eval(new, dict(NAMES))
    expected = {
        FORMATS[0]: "v",
        FORMATS[1]: "   'v'|",
        FORMATS[2]: "a\nb",
        FORMATS[3]: "'a', 'b'",
        FORMATS[4]: "{}v{",
        FORMATS[5]: "d[\"k\"]='v'",
        FORMATS[6]: 'w=    6d["k"] = v',
        FORMATS[7]: "av{b}",
        FORMATS[8]: "  ==   ",
        FORMATS[9]: "\\dv",
        FORMATS[10]: "v•\t",
        FORMATS[11]: "vz",
        FORMATS[12]: "v v\n",
        FORMATS[13]: "v",
        FORMATS[14]: "v",
        FORMATS[15]: "v     ",
    }
    assert value == expected[text]
    if sys.version_info >= (3, 12):
        assert value == eval(text, dict(NAMES))


def test_only_what_needs_it_is_rewritten() -> None:
    old = 'x = f"{a!r}" \'b\' f"{d[\'k\']}"\n# f"{d["k"]}"\ny = "f\'{d}"\n'
    assert rewrite_fstrings(old) == old


def test_private_names_survive() -> None:
    text = 'class A:\n    def __init__(self):\n        self.__x = {"k": 3}\n'
    text += '    def show(self):\n        return f"{self.__x["k"]:03d}"\n'
    space: dict = {}
    exec(rewrite_fstrings(text), space)
    assert space["A"]().show() == "003"


def test_lines_stay() -> None:
    text = 'a = 1\nb = f"{d["k"]}"\nc = (\n    f"{d["k"]}"\n    f"{a}"\n)\nlast = 7\n'
    new = rewrite_fstrings(text)
    assert parses(new)
    assert [i for i, line in enumerate(new.split("\n")) if line == "last = 7"] == [6]


def test_statements_are_not_glued() -> None:
    text = 'x = f"{d["k"]}"\n"""text"""\n'
    assert parses(rewrite_fstrings(text))


def test_hopeless_source_stays() -> None:
    assert modernise("def f(:\n") == "def f(:\n"
    assert "does not parse" in plain_source("def f(:\n").notes[0]


@given(st.text(alphabet="abf'\"{}\\\n# =!:()", max_size=30))
def test_rewriting_never_breaks_what_parses(text: str) -> None:
    if parses(text):
        assert modernise(text) == text


def test_what_cannot_be_known_is_not_unpacked() -> None:
    for text in (
        "import bz2\nexec(bz2.decompress(b'no archive'))",
        "exec(b'x'.decode('punycode'))",
        "import lzma\nexec(lzma.decompress(b'x', filters=[1], format=lzma.FORMAT_RAW))",
        "exec(input())",
        "a = 'a' * 4_000_000\n" + "a = a[::-1]\n" * 200 + "exec(a)",
    ):
        assert not plain_source(text).packed


def test_deep_nesting_is_no_crash() -> None:
    found = plain_source("exec(" + "+".join(["'a'"] * 3000) + ")")
    assert found.layers in (0, 1)
