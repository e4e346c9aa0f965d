"""Where the bytes went, and whether they fit.

What counts is what would be handed in: the artifact as it lies on disk, section by section, and the
packed program. The tokenizer travels in the file too; whether it counts is the recipe's choice (it
does not in the competition), but its bytes are always shown.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from underpar.artifact.container import DIGEST_BYTES, PREFIX
from underpar.artifact.load import read_container
from underpar.bits import megabytes
from underpar.errors import BudgetError
from underpar.recipe.schema import Budget


@dataclass(frozen=True)
class Part:
    """Some bytes of what is shipped; ``counted`` against the budget or only shown."""

    name: str
    bytes: int
    counted: bool = True


@dataclass(frozen=True)
class Account:
    """All bytes of an artifact and its code. ``codes``: weights stored as codes, 0 if none."""

    code_bytes: int
    file_bytes: int
    budget: int
    parts: tuple[Part, ...]
    codes: int = 0

    @property
    def total(self) -> int:
        """Bytes that count."""
        return sum(part.bytes for part in self.parts if part.counted)

    @property
    def left(self) -> int:
        """Bytes of the budget that are free; negative when it is exceeded."""
        return self.budget - self.total

    @property
    def k_factor(self) -> float:
        """By how much wider steps would fit: a factor for quant.matrix_k; inf where none would.

        A step f times as wide saves log2(f) bits a weight; 1 % is added to be on the safe side.
        """
        if self.left >= 0:
            return 1.0
        return 1.01 * 2 ** (8 * -self.left / self.codes) if self.codes else math.inf

    def table(self) -> list[str]:
        """One line a part, then the total: name, bytes, share of the budget."""
        rows = [
            (part.name if part.counted else f"{part.name} (not counted)", part.bytes)
            for part in self.parts
        ]
        rows += [("total", self.total), ("budget", self.budget), ("left", self.left)]
        width = max(len(name) for name, _ in rows)
        return [
            f"{name:<{width}}  {size:>12,} B  {100 * size / self.budget:7.3f} %"
            for name, size in rows
        ]

    def require(self) -> Account:
        """Itself if it fits; BudgetError with what to change if not."""
        over = -self.left
        if over <= 0:
            return self
        hint = "Use a smaller model or fewer bits"
        if self.codes:
            hint += (
                "; quant.compressor = 'rans' codes weights 1 to 2 % shorter than any other; with "
                f"quant.clip = 'std', multiply quant.matrix_k by {self.k_factor:.3f}, or let "
                "quant.fill = true find the steps"
            )
        raise BudgetError(
            "code and artifact do not fit in the budget",
            got=f"{self.total:,} bytes ({megabytes(self.total)}), {over:,} too many",
            wanted=f"at most {self.budget:,}",
            do=f"{hint}.\n" + "\n".join(self.table()),
        )


def account(path: Path, budget: Budget, code: int) -> Account:
    """Count the file at ``path`` and ``code``, the bytes of the program that is handed in with it.

    Says where the bytes are; whether that is too many is asked with ``require``. Raises
    ArtifactError when the file is not a sound artifact.
    """
    header, sections = read_container(path)
    size, stored = path.stat().st_size, sum(len(section) for section in sections.values())
    parts = [Part("code", code)]
    for name, section in sections.items():
        parts.append(Part(name, len(section), name != "tokenizer" or budget.count_tokenizer))
    frame = PREFIX.size + DIGEST_BYTES
    parts += [Part("header", size - stored - frame), Part("frame and digest", frame)]
    codes = header.get("codings", {}).get("codes", (None, 0))[1]
    return Account(code, size, budget.bytes, tuple(parts), codes)
