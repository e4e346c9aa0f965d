"""The environment of the headline run: what the documents say against what the script reads.

Legality belongs to code and settings together, and the defaults of a script are seldom its run. A
log is the better witness: it prints what was in force. README commands come second, shell scripts
third. Only names that the script itself reads are taken, and only where they differ from the
script's own default.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from underpar.audit import switches
from underpar.audit.knobs import LAUNCHER, Knob, as_cast, knobs, same
from underpar.audit.logs import Log, is_log, read_log, without_source

_FENCE = re.compile(r"```[^\n]*\n(.*?)```", re.DOTALL)
_ASSIGN = re.compile(r"(?<![\w$./-])([A-Z][A-Z0-9_]+)=(\"[^\"]*\"|'[^']*'|[^\s\\;\"'`|&)]*)")
_DEFAULTED = re.compile(r"\$\{\w+:[-=]([^}]*)\}")
_BLOCK = re.compile(r"^[^\n]*[Hh]yper-?[Pp]arameters:[ \t]*\n((?:[ \t]+\w+\s*:[^\n]*\n)+)", re.M)
_BLOCK_LINE = re.compile(r"^[ \t]+(\w+)\s*:[ \t]*([^\n]*)$", re.MULTILINE)
_PAIR = re.compile(
    r"(?:^|[\s,(])([A-Za-z][A-Za-z0-9_]+)\s?[:=]\s?"
    r"([-+]?\d[\d_]*\.?\d*(?:[eE][-+]?\d+)?(?![\w./])|True\b|False\b|\[[^\]\n]{0,80}\])"
)
_PLACES = re.compile(r"(_PATH|_DIR|_DIRS|_FILE|_ROOT|^RUN_ID|^LOGFILE)$")
_NOT_THE_RUN = re.compile(r"ablation|smoke|baseline|debug", re.IGNORECASE)
_RUNS = ("torchrun", "python", "bash ", "export ", "modal run")


@dataclass(frozen=True)
class Template:
    """An f-string that prints settings. anchor: its longest literal text."""

    anchor: str
    pattern: re.Pattern[str]
    knobs: tuple[Knob, ...]


@dataclass(frozen=True)
class Settings:
    values: dict[str, str]
    origin: str
    notes: tuple[str, ...]


def headline_settings(source: str, documents: Mapping[str, str]) -> Settings:
    """Settings of the run behind the headline number."""
    known = known_settings(source)
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return Settings({}, "", ("settings unknown: the script does not parse",))
    names = {knob.name for knob in known}
    from_command, command_file = _from_commands(documents, names)
    log = headline_log(documents, source)
    from_log: dict[str, str] = {}
    if log:
        text = without_source(documents[log.name], source)
        from_log = _from_log(text, known, _templates(tree, known))
    notes = [
        f"{name}: {command_file} says {said}, {log.name} says {from_log[name]}"
        for name, said in from_command.items()
        if log and name in from_log and not same(said, from_log[name]) and name != "SEED"
    ]
    merged = _from_metadata(documents, known) | from_command | from_log
    assumed: dict[str, str] = {}
    if not from_log and not from_command:
        assumed = switches.named(documents, known) | switches.inline(documents, names)
        merged = assumed | merged
    merged = switches.required(tree, known, merged) | merged
    defaults = {knob.name: knob.default for knob in reversed(known)}
    values = {k: v for k, v in sorted(merged.items()) if not same(v, defaults.get(k))}
    origins = [log.name] if log and from_log else []
    origins += [command_file] if from_command else []
    if any(name in values for name in assumed):
        origins += ["words of the documents"]
        said = ", ".join(f"{k}={v}" for k, v in sorted(assumed.items()) if k in values)
        notes.append(f"no log and no command: taken from the words of the documents: {said}")
    return Settings(values, " and ".join(origins), tuple(notes))


def known_settings(source: str) -> list[Knob]:
    """What a script reads from its environment, without places; nothing if it does not parse."""
    try:
        return [knob for knob in knobs(ast.parse(source)) if _matters(knob.name)]
    except (SyntaxError, ValueError, RecursionError):
        return []


def _matters(name: str) -> bool:
    """Settings of the launcher and places on the author's disk say nothing about the run."""
    return name not in LAUNCHER and not _PLACES.search(name)


def headline_log(documents: Mapping[str, str], source: str = "") -> Log | None:
    """The log whose last score is nearest to the headline of the metadata; else the first one."""
    logs = [read_log(n, t, source) for n, t in sorted(documents.items()) if is_log(n, t)]
    wanted = headline_bpb(documents)
    scored = [log for log in logs if log.final is not None] or logs
    scored = [log for log in scored if not _NOT_THE_RUN.search(log.name)] or scored
    if not scored:
        return None
    if wanted is None:
        return scored[0]
    return min(scored, key=lambda log: abs(log.final.bpb - wanted) if log.final else 9.0)


def headline_bpb(documents: Mapping[str, str]) -> float | None:
    meta = metadata(documents)
    for key in ("val_bpb", "mean_val_bpb", "val_bpb_mean", "mean_bpb"):
        value = meta.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
    return None


def metadata(documents: Mapping[str, str]) -> dict[str, Any]:
    """The object in submission.json (or the only JSON document named like it); {} if none."""
    names = [n for n in documents if re.fullmatch(r"submission\w*\.json", n.rsplit("/", 1)[-1])]
    for name in sorted(names, key=len):
        try:
            value = json.loads(documents[name])
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict):
            return value
    return {}


def _from_metadata(documents: Mapping[str, str], known: list[Knob]) -> dict[str, str]:
    """Entries of the metadata that are called as the script's settings are."""
    casts = {knob.name: knob.cast for knob in reversed(known)}
    found: dict[str, str] = {}
    entries = list(metadata(documents).items())
    while entries:
        key, value = entries.pop(0)
        if isinstance(value, dict):
            entries += value.items()
        elif key in casts and isinstance(value, str | int | float):
            fitted = as_cast(str(value), casts[key])
            if fitted and not re.search(r"\s", fitted):
                found.setdefault(key, fitted)
    return found


def _from_commands(documents: Mapping[str, str], names: set[str]) -> tuple[dict[str, str], str]:
    """Settings of the command that sets most of the script's own names."""
    best: tuple[dict[str, str], str] = ({}, "")
    for name, text in sorted(documents.items(), key=lambda item: not item[0].startswith("README")):
        if name.endswith(".sh"):
            blocks: Iterable[str] = [] if _NOT_THE_RUN.search(text) else [text]
        elif name.lower().endswith(".md"):
            blocks = (b for b in _FENCE.findall(text) if any(word in b for word in _RUNS))
        else:
            continue
        for block in blocks:
            found = _assignments(block, names)
            if len(found) > len(best[0]):
                best = found, name
    return best


def _assignments(block: str, names: set[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for match in _ASSIGN.finditer(re.sub(r"(?m)(^|\s)#.*$", "", block)):
        value = _DEFAULTED.sub(r"\1", match[2].strip("\"'"))
        if match[1] in names and "$" not in value and match[1] not in found:
            found[match[1]] = value
    return found


def unread(documents: Mapping[str, str], source: str) -> dict[str, str]:
    """Settings of a README command whose names nowhere occur in the script: name -> document."""
    found: dict[str, str] = {}
    for name, text in sorted(documents.items()):
        if not name.lower().endswith(".md"):
            continue
        for block in _FENCE.findall(text):
            if "torchrun" in block or re.search(r"python3? [\w./-]*train", block):
                for match in _ASSIGN.finditer(block):
                    if match[1] not in source and _matters(match[1]):
                        found.setdefault(match[1], name)
    foreign = re.compile(
        r"(NCCL|OMP|CUDA|TORCH|PYTORCH|HF|WANDB|TORCHINDUCTOR|PYTHON|UV|LD|MATCHED)_"
    )
    return {key: where for key, where in found.items() if not foreign.match(key)}


def _templates(tree: ast.AST, known: list[Knob]) -> list[Template]:
    """What the script's own f-strings print of its settings."""
    by_attribute = {knob.attribute: knob for knob in reversed(known) if len(knob.attribute) > 3}
    found: list[Template] = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.JoinedStr):
            continue
        pattern, printed, anchor = "", [], ""
        for part in node.values:
            if isinstance(part, ast.Constant):
                pattern += re.escape(str(part.value))
                anchor = max(anchor, *str(part.value).split("\n"), key=len)
            elif isinstance(part, ast.FormattedValue):
                name = getattr(part.value, "attr", getattr(part.value, "id", ""))
                if name in by_attribute and part.format_spec is None:
                    printed.append(by_attribute[name])
                    pattern += r"(\[[^\]\n]*\]|[^\s,;)]*)"
                else:
                    pattern += r"[^\n]*?"
        if printed and len(anchor) > 3:
            found.append(Template(anchor, re.compile(pattern), tuple(printed)))
    return found


def _from_templates(text: str, templates: list[Template]) -> dict[str, str]:
    found: dict[str, str] = {}
    for template in templates:
        line = next((part for part in text.split("\n") if template.anchor in part), "")
        match = template.pattern.search(line)
        for knob, value in zip(template.knobs, match.groups() if match else ()):
            fitted = as_cast(_plain(value), knob.cast)
            if fitted:
                found.setdefault(knob.name, fitted)
    return found


def _from_log(text: str, known: list[Knob], templates: list[Template]) -> dict[str, str]:
    """Settings that a log prints: by the script's own f-strings, else under their names."""
    by_label: dict[str, Knob] = {}
    for knob in known:
        by_label.setdefault(knob.name, knob)
        if len(knob.attribute) > 3:
            by_label.setdefault(knob.attribute, knob)
        by_label.setdefault(knob.name.lower(), knob)
    found = _from_templates(text, templates)
    blocks = [pair for body in _BLOCK.findall(text) for pair in _BLOCK_LINE.findall(body)]
    for label, value in [*blocks, *_PAIR.findall(text)]:
        if label not in by_label:
            continue
        knob = by_label[label]
        fitted = as_cast(_plain(value), knob.cast)
        if fitted is not None:
            found.setdefault(knob.name, fitted)
    return found


def _plain(value: str) -> str:
    """[3, 4] -> '3,4'; quotes dropped."""
    value = value.strip()
    if value[:1] in "[(" and value[-1:] in "])":
        return ",".join(item.strip(" '\"") for item in value[1:-1].split(",") if item.strip())
    return value.strip("'\"")
