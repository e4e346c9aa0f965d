"""f-strings of Python 3.12 said again so that Python 3.11 can read them.

Since 3.12 a replacement field may hold the quotes of its own string, backslashes, comments and
line breaks (PEP 701). 3.11 refuses such a file as a whole. An f-string that needs it becomes the
same literal text with the fields emptied, and the expressions become arguments:

    f"{d["k"]!r:>{w}}\\n"      ->      "{!r:>{}}\\n".format((d["k"]), (w))

`str.format` and f-strings share doubled braces, conversions, format specifications and nested
fields, so the text between the fields is copied as it stands. The expressions stay code at the same
place: evaluation order, scopes and the mangling of `self.__x` inside a class are what they were.
Neighbouring literals, which Python would glue together, are joined by `+` in parentheses. Nothing
else of the file is touched, and every statement keeps its line.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_PREFIXES = frozenset(["r", "u", "b", "f", "br", "rb", "fr", "rf"])
_WORD = re.compile(r"[^\W\d]\w*|\d[\w.]*")
_GAP = re.compile(r"(?:[ \t\f]|\\\n)*")
_GAP_IN_BRACKETS = re.compile(r"(?:\s|\\\n|#[^\n]*)*")


class NotPython(ValueError):
    """The text is not Python of any version as far as its strings go."""


@dataclass
class _Field:
    """One replacement field; `debug` is the text that `{x=}` prints before the value."""

    expression: str
    debug: str = ""
    conversion: str = ""
    spec: list[str | _Field] | None = None


@dataclass
class _Literal:
    prefix: str
    quote: str
    start: int
    end: int
    parts: list[str | _Field] = field(default_factory=list)

    @property
    def is_format(self) -> bool:
        return "f" in self.prefix.lower()


def rewrite_fstrings(code: str, *, in_brackets: bool = False) -> str:
    """`code` with the f-strings that only 3.12 accepts turned into `str.format` calls."""
    out: list[str] = []
    i, depth = 0, int(in_brackets)
    while i < len(code):
        literal = _literal(code, i)
        if literal is not None:
            group, i = _group(code, literal, depth > 0)
            out.append(_emit(code, group))
            continue
        c = code[i]
        if c == "#":
            stop = code.find("\n", i)
            stop = len(code) if stop < 0 else stop
            out.append(code[i:stop])
            i = stop
            continue
        word = _WORD.match(code, i)
        if word:
            out.append(word.group())
            i = word.end()
            continue
        depth += (c in "([{") - (c in ")]}")
        out.append(c)
        i += 1
    return "".join(out)


def _literal(code: str, i: int) -> _Literal | None:
    """The string literal that starts at i (the caller stands at the start of a token)."""
    word = _WORD.match(code, i)
    prefix = word.group() if word else ""
    at = i + len(prefix)
    if prefix and prefix.lower() not in _PREFIXES:
        return None
    if code[at : at + 1] not in ("'", '"'):
        return None
    quote = code[at : at + 3] if code[at : at + 3] in ("'''", '"""') else code[at]
    literal = _Literal(prefix, quote, i, at + len(quote))
    if literal.is_format:
        literal.parts, literal.end = _format_parts(code, literal.end, quote, "r" in prefix.lower())
    else:
        literal.end = _plain_end(code, literal.end, quote)
    return literal


def _plain_end(code: str, i: int, quote: str) -> int:
    while i < len(code):
        if code[i] == "\\":
            i += 2
        elif code.startswith(quote, i):
            return i + len(quote)
        else:
            i += 1
    raise NotPython("a string that does not end")


def _format_parts(code: str, i: int, quote: str, raw: bool) -> tuple[list[str | _Field], int]:
    parts: list[str | _Field] = []
    text = ""
    while i < len(code):
        if code.startswith(quote, i):
            return [*parts, text], i + len(quote)
        if code.startswith(("{{", "}}"), i):
            text, i = text + code[i : i + 2], i + 2
        elif code[i] == "{":
            found, i = _field(code, i + 1)
            parts, text = [*parts, text, found], ""
        elif code[i] == "}":
            raise NotPython("a single '}' in an f-string")
        else:
            stop = i + _step(code, i, raw)
            text, i = text + code[i:stop], stop
    raise NotPython("an f-string that does not end")


def _step(code: str, i: int, raw: bool) -> int:
    """How many characters of literal text belong together at i."""
    if code[i] != "\\" or code[i + 1 : i + 2] in ("{", "}"):
        return 1
    if not raw and code.startswith("\\N{", i):
        stop = code.find("}", i)
        if stop > 0:
            return stop + 1 - i
    return 2


def _field(code: str, i: int) -> tuple[_Field, int]:
    """The field whose expression starts at i, and the index after its closing brace."""
    start, depth = i, 0
    expression: str | None = None
    found = _Field("")
    while i < len(code):
        nested = _literal(code, i)
        if nested is not None:
            i = nested.end
            continue
        c = code[i]
        if c == "#":
            i = code.find("\n", i)
            if i < 0:
                break
        elif depth == 0 and code[i : i + 2] in ("!=", "==", "<=", ">="):
            i += 2
        elif depth == 0 and c == "=" and code[i + 1 :].lstrip()[:1] in ("!", ":", "}"):
            expression = code[start:i]
            i += 1 + len(code[i + 1 :]) - len(code[i + 1 :].lstrip())
            found.debug = code[start:i]
        elif depth == 0 and c in "!:}":
            found.expression = code[start:i] if expression is None else expression
            return _field_tail(code, i, found)
        else:
            word = _WORD.match(code, i)
            depth += (c in "([{") - (c in ")]}")
            i = word.end() if word else i + 1
    raise NotPython("a replacement field that does not end")


def _field_tail(code: str, i: int, found: _Field) -> tuple[_Field, int]:
    """Conversion, format specification and closing brace from i on."""
    if code[i] == "!":
        stop = next((j for j in range(i, len(code)) if code[j] in ":}"), len(code))
        found.conversion = code[i:stop].strip()
        i = stop
    if code[i : i + 1] == ":":
        found.spec, text, i = [], "", i + 1
        while i < len(code) and code[i] != "}":
            if code[i] == "{":
                nested, i = _field(code, i + 1)
                found.spec, text = [*found.spec, text, nested], ""
            else:
                text, i = text + code[i], i + 1
        found.spec.append(text)
    if code[i : i + 1] != "}":
        raise NotPython("a replacement field that does not end")
    return found, i + 1


def _group(code: str, first: _Literal, in_brackets: bool) -> tuple[list[_Literal], int]:
    """Literals that Python would glue together, and the index after the last."""
    group, gap = [first], _GAP_IN_BRACKETS if in_brackets else _GAP
    while True:
        match = gap.match(code, group[-1].end)
        following = _literal(code, match.end()) if match else None
        if following is None:
            return group, group[-1].end
        group.append(following)


def _emit(code: str, group: list[_Literal]) -> str:
    first, last = group[0], group[-1]
    if not any(_needed(literal) for literal in group):
        return code[first.start : last.end]
    if len(group) == 1:
        return _as_call(first)
    out, at = "(", first.start
    for literal in group:
        out += code[at : literal.start]
        out += _as_call(literal) if _needed(literal) else code[literal.start : literal.end]
        out += " +" if literal is not last else ")"
        at = literal.end
    return out


def _fields(parts: list[str | _Field]) -> list[_Field]:
    """All fields, each before those of its specification: the numbering of `str.format`."""
    out: list[_Field] = []
    for part in parts:
        if isinstance(part, _Field):
            out += [part, *_fields(part.spec or [])]
    return out


def _needed(literal: _Literal) -> bool:
    for part in _fields(literal.parts):
        text = part.expression
        if "\\" in text or "#" in text or literal.quote in text:
            return True
        if "\n" in text and len(literal.quote) == 1:
            return True
        if rewrite_fstrings(text, in_brackets=True) != text:
            return True
    return False


def _as_call(literal: _Literal) -> str:
    arguments: list[str] = []

    def emptied(part: str | _Field) -> str:
        if isinstance(part, str):
            return part
        shown = ""
        conversion = part.conversion
        if part.debug:
            arguments.append(repr(part.debug))
            shown = "{}"
            conversion = conversion or ("" if part.spec is not None else "!r")
        arguments.append(f"({rewrite_fstrings(part.expression, in_brackets=True)})")
        spec = "" if part.spec is None else ":" + "".join(emptied(p) for p in part.spec)
        return shown + "{" + conversion + spec + "}"

    text = "".join(emptied(part) for part in literal.parts)
    prefix = "r" if "r" in literal.prefix.lower() else ""
    return f"{prefix}{literal.quote}{text}{literal.quote}.format({', '.join(arguments)})"
