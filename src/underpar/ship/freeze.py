"""A frozen recipe put into the code: ``spec.average`` becomes ``'ema'`` wherever it is read.

Which expressions are sections of the recipe is read off the annotations: a parameter ``spec:
TrainSpec``, an attribute that was given one, a call of a function that returns one. So nothing is
guessed from a name, and where the annotations do not tell, the expression stays as it is. What may
change while the program runs is not put in: keys that the environment sets, and ``varying`` ones.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Mapping
from typing import Any

from underpar.ship.fold import constant
from underpar.ship.scopes import FUNCTIONS, walk

Types = dict[str, str]


def freeze(
    tree: ast.Module,
    sections: Mapping[str, object],
    varying: Collection[str],
) -> None:
    """Replace reads of the recipe by their values, in place.

    sections: class name -> the object that every instance of it equals. varying: keys
    "Class.attribute" that are left alone. Attributes that are sections themselves, and those that
    are neither number, text nor empty table, are left alone too.
    """
    types = _Program(tree)
    for node in tree.body:
        if isinstance(node, FUNCTIONS):
            _Freeze(types, sections, varying, {}, "").function(node)
        elif isinstance(node, ast.ClassDef):
            for part in node.body:
                if isinstance(part, FUNCTIONS):
                    _Freeze(types, sections, varying, {}, node.name).function(part)


def name_of(annotation: ast.expr | None) -> str:
    """The class of an annotation ``C`` or ``C | None``; '' for any other."""
    parts = [p.strip() for p in ast.unparse(annotation).split("|")] if annotation else []
    names = [part for part in parts if part != "None"]
    return names[0] if len(names) == 1 else ""


class _Program:
    """What functions return, and what the attributes of classes are."""

    def __init__(self, tree: ast.Module) -> None:
        self.returns: Types = {}
        self.attributes: dict[str, Types] = {}
        for node in tree.body:
            if isinstance(node, FUNCTIONS):
                self.returns[node.name] = name_of(node.returns)
            elif isinstance(node, ast.ClassDef):
                self.returns[node.name] = node.name
                self.attributes[node.name] = {
                    part.target.id: name_of(part.annotation)
                    for part in node.body
                    if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name)
                }
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                for part in node.body:
                    if isinstance(part, FUNCTIONS) and part.name == "__init__":
                        self._given(node.name, part)

    def _given(self, owner: str, init: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        """``self.x = parameter``: the attribute is what the parameter is."""
        types = parameter_types(init)
        for node in walk(init):
            for target, value in assigned(node):
                if isinstance(target, ast.Attribute) and ast.unparse(target.value) == "self":
                    known = self.type_of(value, types)
                    self.attributes[owner].setdefault(target.attr, known)

    def type_of(self, node: ast.AST, types: Types) -> str:
        """The class of an expression, '' when unknown."""
        if isinstance(node, ast.Name):
            return types.get(node.id, "")
        if isinstance(node, ast.Attribute):
            return self.attributes.get(self.type_of(node.value, types), {}).get(node.attr, "")
        if isinstance(node, ast.BoolOp):
            known = {self.type_of(part, types) for part in node.values}
            return known.pop() if len(known) == 1 else ""
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id == "replace" and node.args:
                return self.type_of(node.args[0], types)
            return self.returns.get(node.func.id, "")
        return ""


def parameter_types(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Types:
    a = function.args
    return {arg.arg: name_of(arg.annotation) for arg in [*a.posonlyargs, *a.args, *a.kwonlyargs]}


def assigned(node: ast.AST) -> list[tuple[ast.expr, ast.expr]]:
    """(target, value) pairs of an assignment, tuples taken apart."""
    if isinstance(node, ast.AnnAssign):
        return [(node.target, node.value)] if node.value else []
    if not isinstance(node, ast.Assign):
        return []
    pairs = []
    for target in node.targets:
        if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
            pairs += list(zip(target.elts, node.value.elts))
        else:
            pairs.append((target, node.value))
    return pairs


class _Freeze(ast.NodeTransformer):
    """One function, with the types of its names."""

    def __init__(
        self,
        program: _Program,
        sections: Mapping[str, object],
        varying: Collection[str],
        outer: Types,
        owner: str,
    ) -> None:
        self._program, self._sections, self._varying = program, sections, varying
        self._types, self._owner = dict(outer), owner

    def function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self._types |= parameter_types(node)
        if self._owner:
            self._types["self"] = self._owner
        for part in walk(node):
            for target, value in assigned(part):
                if isinstance(target, ast.Name):
                    known = self._program.type_of(value, self._types)
                    before = self._types.get(target.id, known)
                    self._types[target.id] = known if known == before else ""
        node.args.defaults = [self.visit(d) for d in node.args.defaults]
        node.body = [self.visit(part) for part in node.body]

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        inner = _Freeze(self._program, self._sections, self._varying, self._types, "")
        inner.function(node)
        return node

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        owner = self._program.type_of(node.value, self._types)
        self.generic_visit(node)
        if not isinstance(node.ctx, ast.Load) or owner not in self._sections:
            return node
        if f"{owner}.{node.attr}" in self._varying:
            return node
        value: Any = getattr(self._sections[owner], node.attr, object)
        if isinstance(value, Mapping):
            return constant(dict(value))
        return constant(value) if isinstance(value, str | int | float) else node
