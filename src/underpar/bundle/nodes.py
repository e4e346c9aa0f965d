"""A quick walk over syntax trees: ``ast.walk`` without contexts and operators, as they stand."""

from __future__ import annotations

import ast
from collections.abc import Iterator

_LEAVES = (ast.expr_context, ast.operator, ast.unaryop, ast.boolop, ast.cmpop)


def walk(node: ast.AST) -> Iterator[ast.AST]:
    """The node and all below it, in the order of the text, but for contexts and operators."""
    waiting = [node]
    while waiting:
        node = waiting.pop()
        yield node
        children: list[ast.AST] = []
        for name in node._fields:
            part = getattr(node, name, None)
            if isinstance(part, list):
                children += [item for item in part if isinstance(item, ast.AST)]
            elif isinstance(part, ast.AST) and not isinstance(part, _LEAVES):
                children.append(part)
        waiting += reversed(children)
