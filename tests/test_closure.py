import ast
import sys

import pytest

from underpar.errors import DataError
from underpar.ship.closure import SOURCES, closure
from underpar.ship.shake import shake

FILES = {
    "toy/__init__.py": "",
    "toy/main.py": """
import os
from typing import TYPE_CHECKING
from toy import plain
from toy.parts import gear, GEARS
from toy.near import x
if TYPE_CHECKING:
    from toy import unused
else:
    import toy.otherwise
def later():
    import toy.parts.late
    from toy.deep.er import thing
""",
    "toy/plain.py": "import json, numpy",
    "toy/near.py": "from toy import plain\nx = 1",
    "toy/otherwise.py": "",
    "toy/unused.py": "",
    "toy/parts/__init__.py": "from toy.parts.gear import wheel\nGEARS = 3",
    "toy/parts/gear.py": "from toy.plain import json\ndef wheel(): pass",
    "toy/parts/late.py": "",
    "toy/deep/__init__.py": "from toy import main",
    "toy/deep/er.py": "thing = 1",
}


@pytest.fixture
def sources(tmp_path):
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_every_import_that_can_run_is_followed(sources):
    found = closure("toy.main", sources)
    assert set(found) == {
        "toy",
        "toy.main",
        "toy.plain",
        "toy.near",
        "toy.otherwise",
        "toy.parts",
        "toy.parts.gear",
        "toy.parts.late",
        "toy.deep",
        "toy.deep.er",
    }


def test_reading_does_not_import(sources):
    closure("toy.main", sources)
    assert "toy" not in sys.modules


def test_a_missing_entry_is_an_error(sources):
    with pytest.raises(DataError, match=r"toy\.absent"):
        closure("toy.absent", sources)


def test_the_program_does_not_need_what_only_people_use():
    folders = {
        name.split(".")[1] for name in closure("underpar.standalone", SOURCES) if "." in name
    }
    assert {"score", "train", "quant", "artifact"} <= folders
    assert not folders & {"cli", "codec", "audit", "submit", "ship"}


SHAKEN = {
    "toy.main": """
from toy import tools
from toy.shapes import Square as Box, circle
import json, os
LIMIT = 3
UNUSED = 4
A, B = 1, 2
def main(argv):
    return tools.helper(Box(), LIMIT, B), os
def unused():
    return circle()
""",
    "toy.tools": """
def helper(box, *rest):
    return box.area(), rest
def unused():
    return helper
area = 'not the method'
print('effect')
""",
    "toy.shapes": """
from abc import ABC
import outside
class Shape(ABC):
    name = 'shape'
    def area(self): return self.side()
    def unused(self): pass
class Square(Shape):
    def __init__(self): pass
    def side(self): return 2
    def other(self): pass
class Layer(outside.Module):
    def forward(self): pass
def circle():
    return Layer()
""",
}


def shaken(modules):
    trees = {name: ast.parse(text) for name, text in modules.items()}
    shake(trees, "toy.main", "main")
    return {name: ast.unparse(tree) for name, tree in trees.items()}


def test_shaking_keeps_what_can_be_reached_and_nothing_else():
    texts = shaken(SHAKEN)
    assert "unused" not in "".join(texts.values()).lower()
    assert "LIMIT" in texts["toy.main"]
    assert "A, B = (1, 2)" in texts["toy.main"]
    assert "import os" in texts["toy.main"]
    assert "json" not in texts["toy.main"]
    assert "circle" not in texts["toy.main"]
    assert texts["toy.tools"].endswith("print('effect')")
    assert "area =" not in texts["toy.tools"]
    shapes = texts["toy.shapes"]
    assert "def side" in shapes
    assert "def __init__" in shapes
    assert "name = 'shape'" in shapes
    assert "other" not in shapes
    assert "Layer" not in shapes


def test_methods_of_foreign_classes_are_kept():
    modules = dict(SHAKEN)
    modules["toy.main"] = modules["toy.main"].replace("LIMIT, B", "unused()")
    assert "def forward" in shaken(modules)["toy.shapes"]
