"""Suspicions about the order of scoring and training, from the text of the script."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from underpar.audit.source_graph import (
    CodeUnit,
    Program,
    counts_bytes,
    identifier,
    is_val,
    last_name,
)

Suspicion = tuple[str, str, int]

_EPOCH = re.compile(r"(^|_)(epoch|ep|epochs|num_epochs)(_|$)")
_SECOND = re.compile(r"(^|_)(two_?pass\d?|rescore\w*|pass_?2|second_pass)(_|$)", re.IGNORECASE)
_LEAVES = frozenset(
    ["zeros", "zeros_like", "randn", "randn_like", "empty", "full", "ones", "tensor", "clone"]
)


def suspicions(program: Program) -> Iterator[Suspicion]:
    for unit in program.units:
        yield from _update_before_score(program, unit)
        yield from _own_window(unit, program)
        yield from _last_epoch(unit, program)
    yield from _second_pass(program)


def _trains(nodes: list[ast.AST]) -> bool:
    called = {last_name(node.func) for node in nodes if isinstance(node, ast.Call)}
    return bool({"backward", "grad"} & called) and "step" in called


def _update_before_score(program: Program, unit: CodeUnit) -> Iterator[Suspicion]:
    """A loop that trains on slices of the validation tokens and counts no bytes."""
    if not _trains(unit.nodes):
        return
    callers = program.callers(unit.name)
    if callers and all(counts_bytes(c.nodes) and _loops_over(c, unit.name) for c in callers):
        return
    val = _val_names(unit)
    live = {id(node) for node in unit.nodes}
    inside: set[int] = set()
    for loop in unit.nodes:
        if not isinstance(loop, ast.For | ast.While) or id(loop) in inside:
            continue
        nodes = [node for node in ast.walk(loop) if id(node) in live]
        inside.update(id(node) for node in nodes)
        if _trains(nodes) and not counts_bytes(nodes) and _slices(nodes, val):
            text = f"{unit.name} trains on validation tokens in a loop that scores nothing"
            yield "update_before_score", text, loop.lineno
            return


def _loops_over(caller: CodeUnit, name: str) -> bool:
    """Is `name` called inside a loop of the caller (chunk by chunk) rather than once before?"""
    return any(
        isinstance(inner, ast.Call) and last_name(inner.func) == name
        for loop in caller.nodes
        if isinstance(loop, ast.For | ast.While)
        for inner in ast.walk(loop)
    )


def _val_names(unit: CodeUnit) -> set[str]:
    """Names that hold validation tokens or slices of them."""
    names = {name for name in unit.names() if is_val(name)}
    if isinstance(unit.node, ast.FunctionDef):
        names |= {a.arg for a in unit.node.args.args if is_val(a.arg)}
    for _ in range(3):
        for node in unit.nodes:
            if isinstance(node, ast.Assign) and _root(node.value) in names:
                names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return names


def _root(node: ast.expr) -> str:
    """The variable that a chain of slices and methods starts from: `a.b[1:].to(d)` -> 'b'."""
    while True:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            node = node.func.value
            continue
        validation = isinstance(node, ast.Attribute) and is_val(node.attr)
        if validation or not isinstance(node, ast.Subscript | ast.Attribute):
            return identifier(node)
        node = node.value


def _slices(nodes: list[ast.AST], names: set[str]) -> bool:
    return any(
        isinstance(node, ast.Subscript)
        and isinstance(node.ctx, ast.Load)
        and identifier(node.value) in names
        for node in nodes
    )


def _own_window(unit: CodeUnit, program: Program) -> Iterator[Suspicion]:
    """A free tensor optimised where the unit also scores."""
    called = {name for name, _ in unit.calls()}
    if not ({"backward", "grad"} & called and "step" in called):
        return
    if not (counts_bytes(unit.nodes) or any(counts_bytes(c.nodes) for c in _outer(unit, program))):
        return
    for node in unit.nodes:
        if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Name):
            continue
        made = _free_tensor(node.value)
        if made is None:
            continue
        shared = bool(made.args) and isinstance(made.args[0], ast.Constant)
        shared = shared and made.args[0].value == 1  # type: ignore[attr-defined]
        name = node.targets[0].id
        if shared:
            text = f"{unit.name} optimises one '{name}' for a whole batch of windows it scores"
            yield "delta_shared_by_batch", text, node.lineno
        else:
            text = f"{unit.name} optimises '{name}' on windows that it scores"
            yield "delta_on_own_window", text, node.lineno
        return


def _outer(unit: CodeUnit, program: Program) -> list[CodeUnit]:
    return [c for c in program.callers(unit.name) if c is not unit and c.name != "<module>"]


def _free_tensor(value: ast.expr) -> ast.Call | None:
    """The call that makes the tensor, if `value` is a new leaf that wants gradients."""
    wants = False
    for node in ast.walk(value):
        if isinstance(node, ast.Call):
            wants |= any(k.arg == "requires_grad" and _true(k.value) for k in node.keywords)
            wants |= last_name(node.func) in ("requires_grad_", "Parameter")
    if not wants:
        return None
    made = [n for n in ast.walk(value) if isinstance(n, ast.Call) and last_name(n.func) in _LEAVES]
    return made[-1] if made else None


def _true(node: ast.expr) -> bool:
    """True, or a name for it: packers give constants short names."""
    return isinstance(node, ast.Name) or (isinstance(node, ast.Constant) and node.value is True)


def _last_epoch(unit: CodeUnit, program: Program) -> Iterator[Suspicion]:
    """Sums that are taken in the last epoch only, or emptied at the start of each."""
    if "step" not in {name for name, _ in unit.calls()}:
        return
    live = {id(node) for node in unit.nodes}
    for node in unit.nodes:
        if isinstance(node, ast.If) and _is_last_epoch(node.test, program):
            nodes = [inner for inner in ast.walk(node) if id(inner) in live]
            if any(isinstance(inner, ast.AugAssign) for inner in nodes):
                text = f"{unit.name} adds to the score in the last epoch only"
                yield "last_epoch_accumulator", text, node.lineno
                return
        if isinstance(node, ast.For) and _is_epochs(node, program):
            for inner in ast.walk(node):
                if id(inner) in live and _empties(inner):
                    text = f"{unit.name} empties its sums in every epoch"
                    yield "last_epoch_accumulator", text, getattr(inner, "lineno", node.lineno)
                    return


def _is_last_epoch(test: ast.expr, program: Program) -> bool:
    for node in ast.walk(test):
        if not isinstance(node, ast.Compare) or not isinstance(node.ops[0], ast.Eq):
            continue
        right = node.comparators[0]
        if _EPOCH.search(identifier(node.left)) and isinstance(right, ast.BinOp):
            return program.value(right.left) != 1.0
    return False


def _is_epochs(loop: ast.For, program: Program) -> bool:
    if not _EPOCH.search(identifier(loop.target)) or not isinstance(loop.iter, ast.Call):
        return False
    return not loop.iter.args or program.value(loop.iter.args[-1]) != 1.0


def _empties(node: ast.AST) -> bool:
    if isinstance(node, ast.Call) and last_name(node.func) == "zero_":
        owner = node.func.value if isinstance(node.func, ast.Attribute) else None
        return "byte" in identifier(owner).lower()
    if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
        return node.value.value == 0 and "byte" in identifier(node.targets[0]).lower()
    return False


def _second_pass(program: Program) -> Iterator[Suspicion]:
    """Identifiers that speak of a second pass, in code that runs under the settings."""
    for unit in program.units:
        if unit.name == "<module>":
            continue
        hits = [n for n in unit.nodes if _SECOND.search(identifier(n))]
        written = [n for n in hits if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]
        called = [n for name, n in unit.calls() if _SECOND.search(name)]
        for node in [*called, *written]:
            text = f"{unit.name} goes over positions a second time ('{_named(node)}')"
            yield "second_pass", text, getattr(node, "lineno", 0)
            return


def _named(node: ast.AST) -> str:
    return last_name(node.func) if isinstance(node, ast.Call) else identifier(node)
