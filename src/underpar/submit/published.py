"""submission.json with the fields that entries publish, and underpar.json with everything.

The published file has no schema: 55 entries have 39 sets of keys. This one has the fields of the
recent leaders, with their names and decimals. underpar.json is versioned and strict, and contains
the records themselves, from which every other number of the folder can be computed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from underpar.report.stats import SD_FORMULA
from underpar.stages import planned
from underpar.submit.checks import RECORD_SECONDS, RECORD_SEEDS, Check, Track
from underpar.submit.describe import hardware, summary, versions
from underpar.submit.meta import Meta
from underpar.submit.runs import Run
from underpar.submit.seeds import Seeds

FORMAT = "underpar.submission"
SCHEMA = 1


def submission_json(
    runs: Sequence[Run], seeds: Seeds, meta: Meta, track: Track, code_bytes: int
) -> dict[str, Any]:
    """The fields of a published submission.json. code_bytes: of train_gpt.py as it is shipped."""
    totals = [row.total_bytes for row in seeds.rows]
    fields: dict[str, Any] = {
        "author": meta.author,
        "github_id": meta.github_id,
        "name": meta.name,
        "blurb": meta.blurb,
        "date": max(run.record.date for run in runs)[:10],
        "track": track.name,
        "val_loss": round(seeds.nats.mean, 8),
        "val_bpb": round(seeds.bpb.mean, 8),
    }
    if seeds.nats.sd is not None and seeds.bpb.sd is not None:
        fields |= {
            "val_loss_std": round(seeds.nats.sd, 8),
            "val_bpb_std": round(seeds.bpb.sd, 8),
        }
    fields |= {
        "seeds": [run.seed for run in runs],
        "seed_results": {str(run.seed): _result(run, code_bytes) for run in runs},
        "artifact_bytes_mean": round(fmean(totals)),
        "artifact_bytes_max": max(totals),
        "bytes_total": max(totals),
        "bytes_code": code_bytes,
        "train_steps_mean": round(fmean(run.train.steps for run in runs), 2),
        "step_avg_ms_mean": round(fmean(_step_ms(run) for run in runs), 2),
        "hardware": hardware(runs),
        "pytorch_version": " / ".join(versions(runs, "torch")),
        "technique_summary": summary(runs[0].recipe),
        "compliance": _compliance(runs, max(totals), track),
        "attribution": _attribution(meta),
    }
    if meta.parents:
        fields["base_pr"] = meta.parents[0].pr
    return fields


def _result(run: Run, code_bytes: int) -> dict[str, Any]:
    """One seed, with the field names of the leaders' seed_results."""
    return {
        "val_loss": round(run.headline.nats_per_token, 8),
        "val_bpb": round(run.headline.bpb, 8),
        "artifact_bytes": run.counted_bytes + code_bytes,
        "steps": run.train.steps,
        "step_avg_ms": round(_step_ms(run), 2),
        "train_time_ms": round(1000 * run.train.seconds),
        "eval_time_ms": round(1000 * run.headline.seconds),
    }


def _compliance(runs: Sequence[Run], largest: int, track: Track) -> dict[str, bool]:
    """The published flags; the "no_" ones are practices that underpar's scorer has no code for."""
    longest = max(run.train.seconds for run in runs)
    flags = {
        "train_under_600s": longest <= RECORD_SECONDS,
        "artifact_under_16mb": largest <= track.cap,
        "eval_under_600s": max(run.headline.seconds for run in runs) <= RECORD_SECONDS,
        "no_slot": True,
        "no_pre_quant_ttt": True,
        "no_etlb": True,
        "no_ngram_cache": True,
    }
    if runs[0].recipe.score.ttt:
        flags["score_first_ttt"] = True
    return flags | {"three_seeds": len(runs) >= RECORD_SEEDS}


def _attribution(meta: Meta) -> dict[str, str]:
    parents = {}
    for parent in meta.parents:
        by = f"@{parent.by}, " if parent.by else ""
        parents[f"pr_{parent.pr}"] = f"{parent.what} ({by}PR #{parent.pr})"
    return parents | {credit.who: credit.what for credit in meta.credits}


def _step_ms(run: Run) -> float:
    return 1000 * run.train.seconds / max(run.train.steps, 1)


def own_json(
    runs: Sequence[Run],
    seeds: Seeds,
    meta: Meta,
    track: Track,
    checks: Sequence[Check],
    files: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """underpar's own schema: track and author, checks, files, the complete records.

    files: name -> bytes and SHA-256, of all but README.md and this file.
    """
    *_, before, headline = (stage.name for stage in planned(runs[0].recipe.score.ttt))
    return {
        "format": FORMAT,
        "schema": SCHEMA,
        "track": {
            "name": track.name,
            "train_seconds": track.train_seconds,
            "eval_seconds": track.eval_seconds,
            "cap_bytes": track.cap,
        },
        "meta": meta.to_json(),
        "headline": headline,
        "before": before,
        "sd_formula": SD_FORMULA,
        "bpb": seeds.bpb.to_json(),
        "nats_per_token": seeds.nats.to_json(),
        "before_bpb": seeds.before.to_json(),
        "checks": [check.to_json() for check in checks],
        "files": {name: dict(facts) for name, facts in files.items()},
        "records": [run.record.to_json() for run in runs],
    }
