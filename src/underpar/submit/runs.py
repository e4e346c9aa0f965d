"""The runs of a submission: read from their folders, refused unless they are seeds of one recipe.

A submission's score is a mean over seeds, which means something only if nothing but the seed
differs. So every run must be finished and scored over the whole stream, on the same text, from the
file in its folder; and the recipe in its record must have the recorded digest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from underpar.bits import Score
from underpar.errors import DataError, UnderparError
from underpar.recipe.load import flatten, from_json
from underpar.recipe.plain import digest
from underpar.recipe.schema import Recipe
from underpar.report.record import ArtifactFacts, DataFacts, Record, TrainFacts
from underpar.stages import planned

#: Differences that an error message lists at most.
MOST_LISTED = 4


@dataclass(frozen=True)
class Run:
    """A finished run: its folder, its recipe, and the facts of its record."""

    folder: Path
    record: Record
    recipe: Recipe
    train: TrainFacts
    data: DataFacts
    artifact: ArtifactFacts

    @classmethod
    def read(cls, source: Path) -> Run:
        """source: a run folder or its record.json.

        DataError: unreadable, unfinished, partly scored, or its files are not the recorded ones.
        """
        folder = source.parent if source.name == "record.json" else source
        try:
            record = Record.read(folder / "record.json")
            recipe = from_json(record.recipe)
        except UnderparError as error:
            raise DataError(f"cannot submit {source}", got=str(error)) from error
        if record.train is None or record.data is None or record.artifact is None:
            raise _unfinished(folder, "a record without training, data or artifact", "all three")
        if missing := [
            stage.name for stage in planned(recipe.score.ttt) if stage.name not in record.stages
        ]:
            done = ", ".join(record.stages) or "none"
            raise _unfinished(folder, f"finished stages {done}", f"{', '.join(missing)} as well")
        run = cls(folder, record, recipe, record.train, record.data, record.artifact)
        run._check_identity()
        run._check_scores()
        return run

    @property
    def seed(self) -> int:
        return self.record.seed

    @property
    def log(self) -> Path:
        return self.folder / "log.txt"

    @property
    def headline(self) -> Score:
        """The score that is handed in: of the recipe's last stage, whichever stage is best."""
        return self.record.stages[planned(self.recipe.score.ttt)[-1].name]

    @property
    def before(self) -> Score:
        """The score one stage earlier, so that the last stage's gain is the difference."""
        return self.record.stages[planned(self.recipe.score.ttt)[-2].name]

    @property
    def counted_bytes(self) -> int:
        """Bytes of the artifact that count against the cap, code not among them."""
        return self.artifact.total_bytes - self.artifact.code_bytes

    def _check_identity(self) -> None:
        """Check that recipe, digest and files belong together."""
        if digest(self.recipe) != self.record.recipe_digest or self.recipe.seed != self.seed:
            raise DataError(
                f"cannot submit {self.folder}",
                got="a record whose recipe is not the one of its digest and seed",
                wanted="the record as the run wrote it",
            )
        file = self.folder / "model.upar"
        if not file.is_file() or _sha256(file) != self.artifact.sha256:
            raise DataError(
                f"cannot submit {self.folder}",
                got="another model.upar" if file.is_file() else "no model.upar",
                wanted=f"the file that was scored, SHA-256 {self.artifact.sha256[:12]}...",
                do="Score it again: underpar train with --resume does what is missing.",
            )
        if not self.log.is_file():
            raise DataError(f"cannot submit {self.folder}", got="no log.txt", wanted="its log")

    def _check_scores(self) -> None:
        """Check that every stage scored all targets and bytes of the recorded stream."""
        for stage, score in self.record.stages.items():
            targets = self.data.val_tokens - 1
            if not score.complete or score.tokens != targets or score.bytes != self.data.val_bytes:
                raise DataError(
                    f"cannot submit {self.folder}, stage '{stage}'",
                    got=f"{score.tokens:,} tokens, {score.bytes:,} bytes, "
                    f"coverage {score.coverage:.6g}",
                    wanted=f"{targets:,} tokens, {self.data.val_bytes:,} bytes, coverage 1",
                )


def read_runs(sources: Sequence[Path]) -> list[Run]:
    """The runs in the order given. DataError unless they differ in nothing but their seeds."""
    if not sources:
        raise DataError("submission", got="no run", wanted="a run folder for each seed")
    runs = [Run.read(Path(source)) for source in sources]
    for i, run in enumerate(runs):
        _check_same_recipe(runs[0], run)
        _check_same_data(runs[0], run)
        if twins := [other.folder for other in runs[:i] if other.seed == run.seed]:
            raise DataError(
                f"cannot submit {run.folder} with {twins[0]}",
                got=f"seed {run.seed} a second time",
                wanted="each seed once",
                do="Leave one out; a repeat shows the noise of the machine, not that of seeds.",
            )
    return runs


def _check_same_recipe(first: Run, run: Run) -> None:
    a, b = flatten(first.recipe), flatten(run.recipe)
    if differ := [
        f"{key} {b[key]} and {a[key]}" for key in a if key != "seed" and a[key] != b[key]
    ]:
        raise DataError(
            f"cannot submit {run.folder} with {first.folder}",
            got=f"different recipes: {_listed(differ)}",
            wanted="one recipe under several seeds",
            do="A submission is one recipe; leave out the runs of the other.",
        )


def _check_same_data(first: Run, run: Run) -> None:
    a, b = asdict(first.data), asdict(run.data)
    if differ := [f"{key} {b[key]} and {a[key]}" for key in a if a[key] != b[key]]:
        raise DataError(
            f"cannot submit {run.folder} with {first.folder}",
            got=f"different data: {_listed(differ)}",
            wanted="the same text in the same tokens, trained on and scored",
        )


def _listed(items: Sequence[str]) -> str:
    more = f", and {len(items) - MOST_LISTED} more" if len(items) > MOST_LISTED else ""
    return ", ".join(items[:MOST_LISTED]) + more


def _unfinished(folder: Path, got: str, wanted: str) -> DataError:
    do = "Finish it first: the same underpar train or seeds command goes on with --resume."
    return DataError(f"cannot submit {folder}", got=got, wanted=wanted, do=do)


def _sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
