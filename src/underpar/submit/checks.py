"""The checks before a folder is written; the README's compliance section lists the results.

A ``Check`` names what was compared, and both values. What would make a submission invalid raises an
error; what a reader should know and judge is a note. The track's time limits are compared with the
times measured on the hardware of the runs, and other hardware than the track's is a note, because
no record shows how long a run takes on the track's.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from underpar.bits import BUDGET_BYTES, Score
from underpar.errors import BudgetError, DataError, LegalityError
from underpar.submit.describe import hardware
from underpar.submit.runs import Run

RECORD_TRACK, OPEN_TRACK = "10min_16mb", "non-record-16mb"

#: Seconds of training, and of evaluation, on the record track; and its hardware.
RECORD_SECONDS = 600.0
RECORD_GPUS = re.compile(r"8 x [^,]*H100[^,]*")

#: Steps wider than the recipe's by this factor are worth a note: they lose more quality.
WIDE = 1.25

#: Runs that the competition requires for a record.
RECORD_SEEDS = 3


@dataclass(frozen=True)
class Track:
    """Limits in seconds, None: none. cap: bytes of artifact and code, everywhere the same."""

    name: str
    train_seconds: float | None = None
    eval_seconds: float | None = None
    cap: int = BUDGET_BYTES


@dataclass(frozen=True)
class Check:
    """note: True when it is no reason to refuse, but something a reader should know."""

    name: str
    wanted: str
    found: str
    note: bool = False

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class RecordedProof:
    """The proof in a run's record: its text, decoded by a process that had file and bits alone.

    claim: the score of the same tokens in the same schedule. difference: coded over claimed bits,
    less one.
    """

    seed: int
    claim: Score
    claimed_bits: float
    coded_bits: int
    difference: float
    lanes: int
    adapts: bool
    text_same: bool
    holds: bool

    @classmethod
    def of(cls, run: Run) -> RecordedProof | None:
        """The proof in a run's record. LegalityError when it failed, DataError when damaged."""
        data = run.record.diagnostics.get("proof")
        if data is None:
            return None
        try:
            names = ("claimed_bits", "coded_bits", "difference", "lanes", "adapts", "text_same")
            figures = {name: data[name] for name in (*names, "holds")}
            proof = cls(seed=run.seed, claim=Score.from_json(data["claim"]), **figures)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"proof in {run.folder}/record.json", got=f"damaged ({error})"
            ) from None
        if (proof.claim.tokens, proof.claim.bytes) != (run.headline.tokens, run.headline.bytes):
            raise DataError(
                f"proof in {run.folder / 'record.json'}",
                got=f"{proof.claim.tokens:,} tokens, {proof.claim.bytes:,} bytes",
                wanted=f"of the scored text, {run.headline.tokens:,} tokens, "
                f"{run.headline.bytes:,} bytes",
                do="Prove it on the data it was scored on: give --proof the right --data.",
            )
        if not proof.holds:
            raise LegalityError(
                f"cannot submit {run.folder}",
                got=f"a proof that failed: {proof.difference:+.4%} of bits, "
                f"{'the same' if proof.text_same else 'another'} text",
                wanted="the text back, from the claimed bits",
                do="Look into it with underpar prove.",
            )
        return proof

    @property
    def bpb(self) -> float:
        """Coded bits by bytes of the text."""
        return self.coded_bits / self.claim.bytes

    @property
    def schedule(self) -> str:
        return f"{self.lanes} lanes" if self.lanes else "exact"


def track_of(name: str | None, runs: Sequence[Run]) -> Track:
    """The track called ``name``; None: the record track for runs on its hardware, else the open."""
    if name is None:
        name = RECORD_TRACK if _on_record_hardware(runs) else OPEN_TRACK
    if name == RECORD_TRACK:
        return Track(name, RECORD_SECONDS, RECORD_SECONDS)
    if re.fullmatch(r"non-record-[a-z0-9-]+", name):
        return Track(name)
    raise DataError(
        "--track", got=f"'{name}'", wanted=f"{RECORD_TRACK}, {OPEN_TRACK} or another non-record-*"
    )


def examine(runs: Sequence[Run], code_bytes: int, track: Track) -> list[Check]:
    """Every check, in the order of the README. code_bytes: of train_gpt.py as it is shipped.

    Raises BudgetError over the cap, DataError over a time limit, LegalityError at a failed proof.
    What makes runs one submission was checked when they were read (``read_runs``).
    """
    first = runs[0]
    data, digest = first.data, first.data.val_digest
    return [
        Check("one recipe", "same but for the seed", f"recipe '{first.recipe.name}'"),
        Check("seeds", "each once", ", ".join(str(run.seed) for run in runs)),
        Check("validation text", "same in all runs", f"{data.val_bytes:,} bytes, {digest[:12]}"),
        Check("coverage", "every target once", _coverage(runs)),
        Check("artifact file", "the one that was scored", "SHA-256 as recorded, all runs"),
        _size(runs, code_bytes, track),
        _training(runs, track),
        _evaluation(runs, track),
        *_notes(runs, track, code_bytes),
    ]


def _coverage(runs: Sequence[Run]) -> str:
    stages = len(runs[0].record.stages)
    return f"{runs[0].headline.tokens:,} of {runs[0].data.val_tokens - 1:,}, {stages} stages a run"


def _size(runs: Sequence[Run], code_bytes: int, track: Track) -> Check:
    run = max(runs, key=lambda run: run.counted_bytes)
    total = run.counted_bytes + code_bytes
    if total > track.cap:
        raise BudgetError(
            f"cannot submit {run.folder}: artifact and train_gpt.py as shipped",
            got=f"{run.counted_bytes:,} + {code_bytes:,} = {total:,} bytes, "
            f"{total - track.cap:,} too many",
            wanted=f"at most {track.cap:,}",
            do="Quantize a little coarser: underpar pack RUN --set quant.matrix_k=... (and score).",
        )
    found = f"largest {run.counted_bytes:,} + {code_bytes:,} = {total:,} bytes"
    return Check("artifact + train_gpt.py", f"at most {track.cap:,} bytes", found)


def _training(runs: Sequence[Run], track: Track) -> Check:
    """A run that the clock stopped may have ended with the step that crossed the line."""
    run = max(runs, key=lambda run: run.train.seconds)
    seconds, limit = run.train.seconds, track.train_seconds
    found = f"longest {seconds:,.3f} s"
    if reserve := run.recipe.train.reserve_seconds:
        found += f"; {reserve:g} s reserved for quantization, which is not in it"
    if limit is None:
        return Check("training time", "no limit on this track", found)
    step = seconds / max(run.train.steps, 1) if run.train.stop_reason == "seconds" else 0.0
    if seconds - step > limit:
        raise _too_long(run, "training", seconds, limit)
    if seconds > limit:
        found += f"; the clock stopped it after the step that crossed {limit:g} s"
    return Check("training time", f"at most {limit:g} s", found)


def _evaluation(runs: Sequence[Run], track: Track) -> Check:
    run = max(runs, key=lambda run: run.headline.seconds)
    seconds, limit = run.headline.seconds, track.eval_seconds
    every = max(_shipped_seconds(run) for run in runs)
    found = f"longest {seconds:,.3f} s for the headline; with the stages before it {every:,.3f} s"
    if limit is None:
        return Check("evaluation time", "no limit on this track", found)
    if seconds > limit:
        raise _too_long(run, "evaluation", seconds, limit)
    return Check("evaluation time", f"at most {limit:g} s", found)


def _shipped_seconds(run: Run) -> float:
    """Seconds of all scores of the shipped file."""
    return sum(score.seconds for name, score in run.record.stages.items() if name != "float")


def _too_long(run: Run, what: str, seconds: float, limit: float) -> DataError:
    return DataError(
        f"cannot submit {run.folder} to the track {RECORD_TRACK}",
        got=f"{seconds:,.3f} s of {what}",
        wanted=f"at most {limit:g} s",
        do=f"Hand it in with --track {OPEN_TRACK}.",
    )


def _own_accounting(runs: Sequence[Run], code_bytes: int) -> list[Check]:
    """What the runs themselves counted, under the budget of their recipe."""
    counted, budget = runs[0].artifact.code_bytes, runs[0].recipe.budget.bytes
    total = max(run.counted_bytes for run in runs) + code_bytes
    same = all(run.artifact.code_bytes == code_bytes for run in runs)
    return [
        Check("code", f"{counted:,} bytes as in the record", f"{code_bytes:,} bytes", not same),
        Check("recipe's own budget", f"at most {budget:,}", f"{total:,} bytes", total > budget),
    ]


def _notes(runs: Sequence[Run], track: Track, code_bytes: int) -> list[Check]:
    notes = _own_accounting(runs, code_bytes)
    if track.name == RECORD_TRACK and not _on_record_hardware(runs):
        notes.append(Check("hardware", "8 x H100 SXM", hardware(runs), note=True))
    if len(runs) < RECORD_SEEDS:
        found = f"{len(runs)}, which says little of the spread"
        notes.append(Check("number of seeds", f"{RECORD_SEEDS} or more", found, note=True))
    factors = [run.record.diagnostics.get("step_factor", 1.0) for run in runs]
    if any(factor != 1 for factor in factors):
        wanted = "the recipe's steps, scaled to fill the budget"
        found = ", ".join(f"{f} x with seed {run.seed}" for f, run in zip(factors, runs))
        notes.append(Check("quantization", wanted, found, note=max(factors) > WIDE))
    commits = dict.fromkeys(run.record.commit or "no commit" for run in runs)
    if len(commits) > 1 or any("+changes" in commit for commit in commits):
        notes.append(Check("commit", "one clean commit", ", ".join(commits), note=True))
    unproven = [run.seed for run in runs if RecordedProof.of(run) is None]
    if unproven:
        found = "none for seed " + ", ".join(map(str, unproven))
        notes.append(Check("proof by decoding", "one for each run", found, note=True))
    else:
        proofs = f"{len(runs)}, all came back as the same text"
        notes.append(Check("proof by decoding", "one for each run", proofs))
    return notes


def _on_record_hardware(runs: Sequence[Run]) -> bool:
    return all(RECORD_GPUS.fullmatch(run.record.machine.gpu) for run in runs)
