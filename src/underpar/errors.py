"""Everything underpar raises on purpose.

UnderparError
├── RecipeError        a recipe key, value or file is not what the schema says
├── DataError          a corpus, shard, tokenizer or validation set is not usable as it is
├── ArtifactError      a model file is damaged, foreign, or of another format version
├── CodecError         compressed text is damaged, foreign, or made for another model or machine
├── BudgetError        code plus artifact do not fit in the byte budget
├── TrainingError      training cannot go on (non-finite loss, unusable checkpoint)
├── LegalityError      something tried to score or train in an order the rules forbid
├── DependencyError    an optional package is needed and not installed
└── MachineError       the machine cannot do what was asked (device, disk, processes)

A message says four things: what failed, what was got, what was wanted, what to do about it. The
command line prints it without a traceback and exits with 1; anything else that escapes is our bug.
"""

from __future__ import annotations


class UnderparError(Exception):
    """Base class: a failure that is the input's or the machine's, never a bug of ours."""

    def __init__(
        self, what: str, *, got: object = None, wanted: object = None, do: str = ""
    ) -> None:
        self.what, self.got, self.wanted, self.do = what, got, wanted, do
        sides = [("got", got), ("wanted", wanted)]
        told = ", ".join(f"{word} {value}" for word, value in sides if value is not None)
        text = f"{what}: {told}" if told else what
        super().__init__(f"{text}. {do}" if do else text)


class RecipeError(UnderparError):
    """A recipe key, value or file is not what the schema says."""


class DataError(UnderparError):
    """A corpus, shard, tokenizer or validation set is not usable as it is."""


class ArtifactError(UnderparError):
    """A model file is damaged, foreign, or of another format version."""


class CodecError(UnderparError):
    """Compressed text is damaged, foreign, or made for another model or machine."""


class BudgetError(UnderparError):
    """Code plus artifact do not fit in the byte budget."""


class TrainingError(UnderparError):
    """Training cannot go on: non-finite loss, unusable checkpoint."""


class LegalityError(UnderparError):
    """Something tried to score or train in an order the rules forbid."""


class DependencyError(UnderparError):
    """An optional package is needed and not installed."""


class MachineError(UnderparError):
    """The machine cannot do what was asked: device, disk, processes."""
