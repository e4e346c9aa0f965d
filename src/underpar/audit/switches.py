"""Switches that a submission's documents name but that its script leaves off.

Some submissions come without a log and without a command: the README describes a way of scoring
that the script has behind a flag whose default is off. The defaults are then not the headline run.
A switch is taken to be on if every word of its name stands in one statement of the documents about
the submission itself: a title, an entry of the metadata, an item of a list. Statements that deny
something, and sections about other runs, count for nothing. Only ways of scoring are looked at: a
switch of training would change nothing that is judged. A switch is also taken to be on if a setting
of the documented run is used nowhere but behind it.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Iterator, Mapping

from underpar.audit.knobs import Knob, same

_SCORING = re.compile(
    r"(?:^|_)(N?GRAM|CACHE|TTT|SLOT|PASS|TWOPASS|RESCOR\w+|MIX|MIXER|MIXING|HEDGE|PPM|KNN|BACKOFF|"
    r"ADAPT\w*|SLIDING|TILT|BIAS|TEMPERATURE|DIRICHLET|PREQUANT)(?:_|$)"
)
_GENERIC = re.compile(r"ENABLED?|USE|EVAL|EVALUATION|ON|ACTIVE|DO|RUN|FINAL|MODE|APPLY|WITH|IS")
_OFF = frozenset(("0", "", "False", "false", "no", "off"))
_DENIAL = re.compile(
    r"\b(no|not|none|non|never|without|disabled?|off|removed?|illegal|instead|unlike|versus|vs|prior|"
    r"previous|future|tried|fail(s|ed)?|ablat\w+|optional(ly)?|dropped|avoid\w*|neither|nor|worse)\b"
)
_OTHER_SECTION = re.compile(
    r"credit|related|work|ablat|negative|fail|future|next|reference|acknowledg|background|idea|"
    r"history|lineage|variable|appendix|compliance|legal|checklist"
)
_ITEM = re.compile(r"\s*(?:[-*+]|\d+\.)\s+")
_INLINE = re.compile(r"`([A-Z][A-Z0-9_]+)=([^`\s]*)`")


def named(documents: Mapping[str, str], known: Iterable[Knob]) -> dict[str, str]:
    """Switches that are off by default and named by the documents, as an environment."""
    statements = [words(s) for s in claims(documents)]
    return {
        name: "1"
        for name, content in _switches(known)
        if any(content <= statement for statement in statements)
    }


def behind(label: str, known: Iterable[Knob]) -> dict[str, str]:
    """Switches that are off by default and named by the label of a line of results."""
    said = words(label)
    return {name: "1" for name, content in _switches(known) if content <= said}


def required(tree: ast.AST, known: Iterable[Knob], given: Mapping[str, str]) -> dict[str, str]:
    """Switches without which settings of the run would mean nothing, as an environment.

    given: what the documents say. A setting that differs from its default and is used only where a
    switch is on was set because the switch was.
    """
    holders = {k.attribute: k for k in known if k.attribute}
    off = {a for a, k in holders.items() if k.default in _OFF and k.name not in given}
    told = {a for a, k in holders.items() if k.name in given and not same(given[k.name], k.default)}
    under: dict[str, list[set[str]]] = {}
    _uses(tree, frozenset(), told, off, under)
    found = {}
    for places in under.values():
        for attribute in set.intersection(*places):
            found[holders[attribute].name] = "1"
    return found


def _uses(
    node: ast.AST,
    on: frozenset[str],
    told: set[str],
    off: set[str],
    under: dict[str, list[set[str]]],
) -> None:
    """Note for every use of a told setting which switches have to be on to come there."""
    if isinstance(node, ast.JoinedStr):
        return  # what is only printed is not used
    if isinstance(node, ast.Attribute) and node.attr in told and isinstance(node.ctx, ast.Load):
        under.setdefault(node.attr, []).append(set(on))
    if isinstance(node, ast.If):
        _uses(node.test, on, told, off, under)
        inside = on | {getattr(part, "attr", "") for part in _all_of(node.test)} & off
        for child in node.body:
            _uses(child, frozenset(inside), told, off, under)
        for child in node.orelse:
            _uses(child, on, told, off, under)
        return
    for inner in ast.iter_child_nodes(node):
        _uses(inner, on, told, off, under)


def _all_of(test: ast.expr) -> list[ast.expr]:
    """The parts of a condition that all have to be true."""
    return test.values if isinstance(test, ast.BoolOp) and isinstance(test.op, ast.And) else [test]


def _switches(known: Iterable[Knob]) -> Iterator[tuple[str, set[str]]]:
    """Names of switches of scoring that are off, with the words that make them up."""
    for knob in known:
        parts = knob.name.split("_")
        content = {p.lower() for p in parts if not _GENERIC.fullmatch(p)}
        switch = knob.cast == "bool" or (knob.cast == "int" and len(content) < len(parts))
        if switch and content and knob.default in _OFF and _SCORING.search(knob.name):
            yield knob.name, content


def inline(documents: Mapping[str, str], names: set[str]) -> dict[str, str]:
    """Settings written as code in the running text of the README, outside of denials."""
    found: dict[str, str] = {}
    for line in _readme(documents, items=False):
        if not _DENIAL.search(line.lower()):
            for name, value in _INLINE.findall(line):
                if name in names and value:
                    found.setdefault(name, value)
    return found


def claims(documents: Mapping[str, str]) -> Iterator[str]:
    """Statements about the submission itself."""
    texts = list(_readme(documents, items=True))
    for name, text in documents.items():
        if re.fullmatch(r"submission\w*\.json", name.rsplit("/", 1)[-1]):
            try:
                texts += _strings(json.loads(text))
            except (ValueError, RecursionError):
                continue
    for text in texts:
        for statement in re.split(r"[.;]\s", text):
            if not _DENIAL.search(statement.lower()):
                yield statement


def words(statement: str) -> frozenset[str]:
    """Words of a statement in lower case; "n-gram" is one word, plurals count as singular."""
    plain = re.sub(r"\bn[\s_-]?grams?\b", "ngram", statement.lower().replace("\u2011", "-"))
    found = re.findall(r"[a-z0-9]+", plain)
    return frozenset(w.removesuffix(end) for w in found for end in ("", "s", "es"))


def _readme(documents: Mapping[str, str], *, items: bool) -> Iterator[str]:
    """Lines of the README in sections about the submission; only titles and list items."""
    for name, text in documents.items():
        if not name.rsplit("/", 1)[-1].lower().startswith("readme"):
            continue
        mine = True
        for line in re.sub(r"```.*?(```|\Z)", "", text, flags=re.DOTALL).splitlines():
            if line.startswith("#"):
                mine = line.startswith("# ") or not _OTHER_SECTION.search(line.lower())
            if mine and (not items or line.startswith("#") or _ITEM.match(line)):
                yield line


def _strings(said: object) -> Iterator[str]:
    if isinstance(said, str):
        yield said
    elif isinstance(said, dict):
        for value in said.values():
            yield from _strings(value)
    elif isinstance(said, list):
        for value in said:
            yield from _strings(value)
