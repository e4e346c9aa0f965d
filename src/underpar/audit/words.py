"""Words of a stranger, made fit to be shown: names, messages and file contents may be hostile.

A terminal obeys control characters, a Markdown page of a code host turns names into mentions and
numbers into links, a browser runs markup, and a bidirectional mark makes text read as other text.
"""

from __future__ import annotations

import re
import textwrap
import unicodedata

#: Categories that are not shown: control, format (bidirectional marks), surrogate, private, none.
HIDDEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


def clean(text: object, most: int = 400) -> str:
    """One line of visible characters, cut at ``most``."""
    shown = []
    for letter in str(text)[: 4 * most]:
        if letter in "\n\t\r ":
            shown.append(" ")
        elif unicodedata.category(letter) in HIDDEN:
            shown.append("\N{REPLACEMENT CHARACTER}")
        else:
            shown.append(letter)
    line = " ".join("".join(shown).split())
    return line if len(line) <= most else line[: most - 3] + "..."


def escaped(text: object, most: int = 400) -> str:
    """``clean`` for Markdown: no markup, no HTML, no mention, no link to an issue, no bare link."""
    line = re.sub(r"([\\`*_{}\[\]<>|~&!])", r"\\\1", clean(text, most))
    line = re.sub(r"([@#:])(?=\S)", r"\1<!-- -->", line)
    line = re.sub(r"(?i)(www)\.", r"\1<!-- -->.", line)
    return re.sub(r"^(\s*)([-+=])|^(\s*\d+)([.)])(?=\s|$)", r"\1\3\\\2\4", line)


def code(text: object, most: int = 200) -> str:
    """``clean`` as a code span of Markdown, with a fence that the text does not contain."""
    line = clean(text, most).replace("|", "\N{BROKEN BAR}")
    longest = max((len(run) for run in re.findall("`+", line)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if "`" in line or not line else ""
    return f"{fence}{pad}{line}{pad}{fence}"


def wrapped(text: object, indent: int, width: int = 100, most: int = 2000) -> str:
    """``clean`` in lines of a terminal, all but the first indented."""
    lines = textwrap.wrap(clean(text, most), width - indent) or [""]
    return f"\n{' ' * indent}".join(lines)
