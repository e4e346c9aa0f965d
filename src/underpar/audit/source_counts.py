"""Suspicions about probabilities, byte counts and coverage, from the text of the script."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from underpar.audit.source_graph import (
    CodeUnit,
    Program,
    counts_bytes,
    identifier,
    identifiers,
    is_val,
    last_name,
)
from underpar.audit.source_order import Suspicion

_TARGET = re.compile(r"(^|_)(tgt|tgts|target|targets|y|ys|fy|tn|nxt|next_tok\w*)(_|\d|$)")
_HASHED = re.compile(r"(hash|ctx|key|prime|^ch$|^h$|^ph$)", re.IGNORECASE)
_FULL = re.compile(r"(^|_)(full|fk)(_|$)")
_PROBABILITY = re.compile(r"(prob|(^|_)p(_|\d|$)|model_p|_lp$|^lp)", re.IGNORECASE)
_BYTE_LENGTH = re.compile(r"(byte_?len|n_?bytes|rep_len|tok_len|blen|num_bytes)", re.IGNORECASE)
_LOG_P = re.compile(r"(^|_)(lp|logp|log_p\w*|nll|logprob\w*)(_|$)")
_GATE = re.compile(r"^(within|word|boundary)\w*(boost|beta)$")
_LIMIT = re.compile(r"(max|limit|subset|n|num)_?\w*(docs|tokens|windows|chunks)$")
_PREFIX = re.compile(r"prefix_?(blob|payload|tokens|file|path)|paid_prefix")
_NETWORK = frozenset(
    ("urlopen", "urlretrieve", "snapshot_download", "hf_hub_download", "load_dataset")
)


def suspicions(program: Program) -> Iterator[Suspicion]:
    makers = _key_makers(program)
    for unit in program.units:
        yield from _target_in_key(unit, makers)
        yield from _mixture(unit)
        yield from _network(unit)
        yield from _partial(unit, program)
        yield from _attention(unit)
        yield from _calibration(unit)
    yield from _gates(program)
    yield from _byte_table(program)
    yield from _shipped_tokens(program)


def _is_target_key(node: ast.AST) -> bool:
    """A hash of the context combined with the token that is being scored."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitXor | ast.Add):
        sides = [node.left, node.right]
    elif isinstance(node, ast.Call) and last_name(node.func) == "bitwise_xor":
        sides = node.args[:2]
    else:
        return False
    for side, other in (sides, sides[::-1]):
        if _multiplied_target(side) and any(_HASHED.search(n) for n in identifiers(other)):
            return True
    return False


def _multiplied_target(node: ast.AST) -> bool:
    return any(
        isinstance(inner, ast.BinOp)
        and isinstance(inner.op, ast.Mult)
        and any(_TARGET.search(name) for name in identifiers(inner.left))
        for inner in ast.walk(node)
    )


def _makes_key(value: ast.AST, names: list[str]) -> bool:
    if any(_is_target_key(node) for node in ast.walk(value)):
        return True
    xor = any(isinstance(n, ast.BinOp) and isinstance(n.op, ast.BitXor) for n in ast.walk(value))
    return xor and any(_FULL.search(name) for name in names)


def _key_makers(program: Program) -> set[str]:
    """Functions that return such a key."""
    found: set[str] = set()
    for unit in program.units:
        returns = any(isinstance(node, ast.Return) and node.value for node in unit.nodes)
        if returns and unit.name != "<module>" and _keys(unit, set()):
            found.add(unit.name)
        speaks = "full" in unit.name and "hash" in unit.name
        if speaks and any(isinstance(n, ast.BinOp) for n in unit.nodes):
            found.add(unit.name)
    return found


def _keys(unit: CodeUnit, makers: set[str]) -> set[str]:
    keys: set[str] = set()
    for node in unit.nodes:
        if isinstance(node, ast.Return) and node.value and _makes_key(node.value, [unit.name]):
            keys.add("")
        if not isinstance(node, ast.Assign):
            continue
        names = [identifier(n) for n in ast.walk(node.targets[0]) if isinstance(n, ast.Name)]
        called = {last_name(n.func) for n in ast.walk(node.value) if isinstance(n, ast.Call)}
        if _makes_key(node.value, names) or called & makers:
            keys.update(names)
    return keys


def _target_in_key(unit: CodeUnit, makers: set[str]) -> Iterator[Suspicion]:
    """A table is read under a key that holds the token that is being scored."""
    keys = _keys(unit, makers) - {""}
    if not keys:
        return
    grown = keys | _carried(unit, keys)
    for node in unit.nodes:
        index: ast.AST | None = None
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load):
            index = node.slice
        elif isinstance(node, ast.Call) and last_name(node.func) in ("gather", "take", "get"):
            index = node.args[-1] if node.args else None
        if index is not None and identifiers(index) & grown:
            text = f"{unit.name} reads a table under a key that holds the scored token"
            yield "target_in_key", text, getattr(node, "lineno", 0)
            return


def _carried(unit: CodeUnit, keys: set[str]) -> set[str]:
    """Loop variables over containers that keys were put into."""
    boxes = {
        identifier(call.func.value)
        for name, call in unit.calls()
        if name == "append" and isinstance(call.func, ast.Attribute)
        if any(identifiers(arg) & keys for arg in call.args)
    }
    out: set[str] = set()
    for node in unit.nodes:
        if isinstance(node, ast.For) and identifiers(node.iter) & boxes:
            out |= {n for n in identifiers(node.target) if _FULL.search(n)}
    return out


def _mixture(unit: CodeUnit) -> Iterator[Suspicion]:
    """a*p + (1-a)*q of probabilities that exist for the realised token only."""
    for node in unit.nodes:
        if isinstance(node, ast.Assign) and _is_log_mixture(node.value):
            text = f"{unit.name} mixes log-probabilities of the realised token"
            yield "unnormalized_mixture", text, node.lineno
            return
        if not isinstance(node, ast.BinOp):
            continue
        if isinstance(node.op, ast.Add) and _is_convex(node):
            text = f"{unit.name} mixes probabilities of the realised token"
            yield "unnormalized_mixture", text, node.lineno
            return
        if isinstance(node.op, ast.Div | ast.Pow) and _spreads(node):
            text = f"{unit.name} spreads a token's log-probability evenly over its bytes"
            yield "unnormalized_mixture", text, node.lineno
            return


def _is_convex(node: ast.BinOp) -> bool:
    def weight(side: ast.expr) -> tuple[set[str], bool] | None:
        if not isinstance(side, ast.BinOp) or not isinstance(side.op, ast.Mult):
            return None
        for factor in (side.left, side.right):
            if isinstance(factor, ast.BinOp) and isinstance(factor.op, ast.Sub):
                one = factor.left
                if isinstance(one, ast.Constant) and one.value in (1, 1.0):
                    return identifiers(factor.right), True
        return identifiers(side), False

    left, right = weight(node.left), weight(node.right)
    if not left or not right or left[1] == right[1] or not (left[0] & right[0]):
        return False
    names = [name for name in identifiers(node) if _PROBABILITY.search(name)]
    return len(names) >= 2


def _is_log_mixture(value: ast.expr) -> bool:
    """log(1 - a) beside log(a), each with a log-probability."""
    weights: list[set[str]] = [set(), set()]
    for node in ast.walk(value):
        if isinstance(node, ast.Call) and last_name(node.func) == "log" and node.args:
            inside = node.args[0]
            rest = isinstance(inside, ast.BinOp) and isinstance(inside.op, ast.Sub)
            weights[rest] |= identifiers(inside)
    names = [name for name in identifiers(value) if _LOG_P.search(name)]
    return bool(weights[0] & weights[1]) and len(names) >= 2


def _spreads(node: ast.BinOp) -> bool:
    right, left = identifiers(node.right), identifiers(node.left)
    if not any(_BYTE_LENGTH.search(name) for name in right):
        return False
    return any(_LOG_P.search(name) for name in left) and not any("sum" in name for name in left)


def _network(unit: CodeUnit) -> Iterator[Suspicion]:
    for name, call in unit.calls():
        text = ast.unparse(call)[:200]
        shell = last_name(call.func) in ("run", "check_call", "call", "system", "Popen")
        fetches = shell and re.search(r"\b(wget|curl|git', 'clone)\b", text)
        if name in _NETWORK or text.startswith(("requests.", "socket.")) or fetches:
            yield "network", f"{unit.name} can use the network: {text[:60]}", call.lineno
            return


def _partial(unit: CodeUnit, program: Program) -> Iterator[Suspicion]:
    """Validation tokens or documents cut to a fixed number."""
    if "warm" in unit.name or unit.name in ("__init__", "forward"):
        return
    for node in unit.nodes:
        if not isinstance(node, ast.Subscript) or not isinstance(node.slice, ast.Slice):
            continue
        upper, lower = node.slice.upper, node.slice.lower
        name = identifier(node.value)
        if (
            upper is None
            or lower is not None
            or not (is_val(name) or name in ("docs", "documents"))
        ):
            continue
        limit = program.value(upper)
        fixed = isinstance(upper, ast.Constant) and isinstance(upper.value, int) and upper.value > 8
        known = isinstance(limit, float) and limit > 0 and _LIMIT.search(identifier(upper))
        if fixed or known:
            shown = ast.unparse(upper)
            yield "partial_val", f"{unit.name} keeps only '{name}[:{shown}]'", node.lineno
            return


def _attention(unit: CodeUnit) -> Iterator[Suspicion]:
    for name, call in unit.calls():
        for word in call.keywords:
            off = isinstance(word.value, ast.Constant) and word.value.value is False
            if word.arg in ("is_causal", "causal") and off and "attn" in name + unit.name:
                yield (
                    "noncausal_attention",
                    f"{unit.name} attends without a causal mask",
                    call.lineno,
                )
                return


def _calibration(unit: CodeUnit) -> Iterator[Suspicion]:
    for name, call in unit.calls():
        if re.search(r"hessian|calib", name) and any(
            is_val(n) for arg in call.args for n in identifiers(arg)
        ):
            yield "val_calibration", f"{name} is given validation tokens", call.lineno
            return


def _gates(program: Program) -> Iterator[Suspicion]:
    for name, value in program.flags.items():
        if _GATE.match(name) and isinstance(value, float) and value != 0:
            users = [
                node
                for unit in program.units
                for node in unit.nodes
                if identifier(node) == name and isinstance(getattr(node, "ctx", None), ast.Load)
            ]
            if users:
                text = f"'{name}' = {value:g}: a boost that depends on the class of a token"
                yield "gate_on_target", text, getattr(users[0], "lineno", 0)
                return


def _byte_table(program: Program) -> Iterator[Suspicion]:
    """The space put into the table and added again for each target."""
    adds = any(
        isinstance(node, ast.AugAssign | ast.Call | ast.BinOp)
        and {"has_leading_space_lut", "has_leading_space", "has_space"} & identifiers(node)
        for unit in program.units
        if counts_bytes(unit.nodes)
        for node in unit.nodes
    )
    for unit in program.units if adds else []:
        for node in unit.nodes:
            if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.BinOp):
                continue
            one, length = node.value.right, node.value.left
            plus_one = isinstance(one, ast.Constant) and one.value == 1
            is_length = isinstance(length, ast.Call) and last_name(length.func) == "len"
            if plus_one and is_length and "byte" in identifier(node.targets[0]).lower():
                text = "the leading space is in the byte table and added again when scoring"
                yield "byte_count", text, node.lineno
                return


def _shipped_tokens(program: Program) -> Iterator[Suspicion]:
    for unit in program.units:
        for node in unit.nodes:
            name = identifier(node)
            if name and _PREFIX.search(name) and program.flags.get(name, 1.0) not in ("", 0.0):
                yield "shipped_tokens", f"'{name}': tokens shipped with the model?", node.lineno  # type: ignore[attr-defined]
                return
