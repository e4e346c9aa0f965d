"""A folder of shards with its tokenizer: what training and scoring read.

``opening`` is the door for folders of any origin; this is what stands behind it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from underpar.data.detokenizer import Detokenizer
from underpar.data.validation import ValidationSet


@dataclass(frozen=True, eq=False)
class Dataset:
    """A folder of shards with its tokenizer. info: dataset.json, empty for a download."""

    folder: Path
    train_files: list[Path]
    val_files: list[Path]
    tokenizer: Detokenizer
    info: Mapping[str, Any] = field(default_factory=dict)

    def validation(self) -> ValidationSet:
        """All validation documents, checked; counted once and kept. Raises DataError."""
        return self._validation

    @cached_property
    def _validation(self) -> ValidationSet:
        return ValidationSet.from_shards(self.val_files, self.tokenizer)
