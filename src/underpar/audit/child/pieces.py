"""A made-up vocabulary with every kind of piece that byte tables distinguish.

Order as in the published tokenizers: <pad>, <s>, </s>, <unk>, byte pieces, then text. Text pieces
are word starts ("▁ab"), continuations ("ab"), one standalone "▁", and some letters of two bytes,
so that a byte table that forgets one of the rules cannot agree with the decoded text by luck.
"""

from __future__ import annotations

import itertools

SPACE = "\u2581"
PAD, BOS, EOS, UNK = 0, 1, 2, 3
CONTROLS = 4
_LETTERS = "etaoinshrdlu"
_WIDE = "\u00e9\u00df"
ALL_BYTES = 700
"""From this vocabulary size on all 256 byte pieces fit without crowding out the text."""


def byte_pieces(vocab: int) -> int:
    """How many byte-fallback pieces a vocabulary of this size carries."""
    return 256 if vocab >= ALL_BYTES else 8


def _texts() -> itertools.chain[str]:
    def words(length: int) -> list[str]:
        return ["".join(w) for w in itertools.product(_LETTERS, repeat=length)]

    short = [SPACE, *_LETTERS, *_WIDE]
    pairs = words(2)
    mixed = [t for w in pairs for t in (SPACE + w, w)]
    longer = (t for w in itertools.product(_LETTERS, repeat=4) for t in (SPACE + "".join(w),))
    return itertools.chain(
        (
            p
            for single in zip(short, (SPACE + w for w in (*_LETTERS, *_WIDE, "qu")))
            for p in single
        ),
        mixed,
        ("".join(w) for w in itertools.product(_LETTERS, repeat=3)),
        longer,
    )


class Pieces:
    """The pieces of a vocabulary of `vocab` ids, and the text they stand for."""

    def __init__(self, vocab: int) -> None:
        self.vocab = vocab
        raw = byte_pieces(vocab)
        first = 0x30 if raw < 256 else 0
        names = ["<pad>", "<s>", "</s>", "<unk>"]
        self.byte_values = {CONTROLS + i: (first + i) % 256 for i in range(raw)}
        names += [f"<0x{value:02X}>" for value in self.byte_values.values()]
        names += itertools.islice(_texts(), max(0, vocab - len(names)))
        self.names = names[:vocab]
        self.ids = {name: i for i, name in reversed(list(enumerate(self.names)))}
        self.longest = max(len(name) for name in self.names)

    def is_control(self, i: int) -> bool:
        """<pad>, <s>, </s>: no text."""
        return i in (PAD, BOS, EOS)

    def is_byte(self, i: int) -> bool:
        """Byte-fallback piece: one byte, whatever the length of its name."""
        return i in self.byte_values

    def is_text(self, i: int) -> bool:
        """Carries text that can be written down."""
        return i >= CONTROLS + len(self.byte_values)

    def decode(self, ids: list[int]) -> str:
        """Text of the ids; a space at the very start belongs to the first word and is dropped."""
        out = bytearray()
        for i in ids:
            if i in self.byte_values:
                out.append(self.byte_values[i])
            elif i == UNK:
                out += " \u2047 ".encode()
            elif self.is_text(i):
                out += self.names[i].replace(SPACE, " ").encode()
        text = out.decode("utf-8", errors="replace")
        return text[1:] if text.startswith(" ") else text

    def encode(self, text: str) -> list[int]:
        """Greedy longest match; what matches nothing becomes byte pieces or <unk>."""
        rest = SPACE + text.replace(" ", SPACE) if text else ""
        out: list[int] = []
        while rest:
            for size in range(min(self.longest, len(rest)), 0, -1):
                i = self.ids.get(rest[:size])
                if i is not None and self.is_text(i):
                    out.append(i)
                    break
            else:
                size = 1
                values = {value: i for i, value in self.byte_values.items()}
                out += [values.get(b, UNK) for b in rest[0].replace(SPACE, " ").encode()]
            rest = rest[size:]
        return out

    def base_bytes(self) -> list[int]:
        """Bytes of each piece without its leading space; 0 for controls and <unk>."""
        return [
            1
            if self.is_byte(i)
            else len(name.removeprefix(SPACE).encode())
            if self.is_text(i)
            else 0
            for i, name in enumerate(self.names)
        ]

    def leading_space(self) -> list[bool]:
        """Whether the piece starts a word."""
        return [self.is_text(i) and name.startswith(SPACE) for i, name in enumerate(self.names)]

    def boundary(self) -> list[bool]:
        """Whether a following leading space has no byte: after controls and <unk>."""
        return [self.is_control(i) or i == UNK for i in range(len(self.names))]
