"""Static suspicions with file and line. A suspicion is a place to look at, never a verdict.

What a text can show and what it cannot was measured on labelled submissions: detectors of this
kind are wrong in both directions. Legal designs train on validation tokens in a helper that is
called after scoring; illegal ones read like legal ones but for one mask. Running the scorer
decides; these lines say where to look, and what to exercise.
"""

from __future__ import annotations

import ast

from underpar.audit import source_counts, source_order
from underpar.audit.facts import Finding, Submission
from underpar.audit.knobs import LAUNCHER
from underpar.audit.settings import unread
from underpar.audit.source_graph import Program, identifier


def findings(sub: Submission) -> list[Finding]:
    """Suspicions about the decoded script under the settings of its run, in order of lines."""
    name = sub.script.name
    try:
        tree = ast.parse(sub.source)
        program = Program(tree, sub.settings)
        found = {*source_order.suspicions(program), *source_counts.suspicions(program)}
    except (SyntaxError, ValueError, RecursionError) as error:
        return [Finding("unreadable", f"does not parse: {error}", name, None, "static")]
    out = [Finding(code, text, name, line or None, "static") for code, text, line in found]
    out += _unread_knobs(program, name)
    out += [
        Finding(
            "unread_setting", f"{key} is set in {where} and read nowhere", where, None, "static"
        )
        for key, where in unread(sub.documents, sub.source).items()
    ]
    return sorted(out, key=lambda f: (f.file, f.line or 0, f.code))


def _unread_knobs(program: Program, name: str) -> list[Finding]:
    """Settings that are read from the environment into a name that nothing uses."""
    loaded = {
        identifier(node)
        for node in ast.walk(program.tree)
        if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Load)
    }
    texts = {n.value for n in ast.walk(program.tree) if isinstance(n, ast.Constant)}
    return [
        Finding("unread_knob", f"{knob.name} is read and not used", name, knob.line, "static")
        for knob in program.knobs
        if knob.attribute and knob.attribute not in loaded | texts and knob.name not in LAUNCHER
    ]
