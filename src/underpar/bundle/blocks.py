"""Rows of statements: what is left of them when idle and dead ones go."""

from __future__ import annotations

import ast

_ENDS = (ast.Return, ast.Raise, ast.Continue, ast.Break)


def alive(block: list[ast.stmt]) -> list[ast.stmt]:
    """The statements up to the first that leaves the block; without idle ones."""
    kept: list[ast.stmt] = []
    for node in block:
        if isinstance(node, ast.Pass):
            continue
        if kept and (taken := _known(kept[-1], node)):
            kept[-1:] = taken
            continue
        if kept and (chosen := _chosen(kept[-1], node)):
            kept[-1] = chosen
            break
        kept.append(node)
        if isinstance(node, _ENDS):
            break
    return kept


def _chosen(before: ast.stmt, node: ast.stmt) -> ast.stmt | None:
    """``return x if test else y`` of the two statements that say so."""
    if not isinstance(node, ast.Return) or not isinstance(before, ast.If) or before.orelse:
        return None
    first = before.body[0]
    if len(before.body) > 1 or not isinstance(first, ast.Return):
        return None
    if not first.value or not node.value:
        return None
    return ast.Return(ast.IfExp(before.test, first.value, node.value))


def _known(before: ast.stmt, node: ast.stmt) -> list[ast.stmt]:
    """Of ``x = None`` and ``if x is None: ...``: what is done."""
    if not isinstance(before, ast.Assign) or not isinstance(node, ast.If) or node.orelse:
        return []
    name = ast.unparse(before.targets[0])
    asked = ast.unparse(node.test) == f"{name} is None"
    return node.body if asked and ast.unparse(before.value) == "None" else []


def does(block: list[ast.stmt]) -> bool:
    return any(not isinstance(node, ast.Pass) for node in block)
