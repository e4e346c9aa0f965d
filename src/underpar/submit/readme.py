"""README.md of a submission; every number in it is taken from the runs' records.

Headline, table of seeds, all stages, what was checked and how, the complete recipe, how to run it
again, what it builds on. What was not measured is named as missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from underpar.bits import megabytes
from underpar.recipe.load import to_toml
from underpar.report.tables import render
from underpar.stages import TITLES
from underpar.submit.checks import Check, RecordedProof, Track
from underpar.submit.describe import hardware, processes, summary, versions
from underpar.submit.meta import Meta
from underpar.submit.runs import Run
from underpar.submit.seeds import Seeds

#: The four conditions of issue #1017: their names, and what in underpar's scorer ensures them.
CONDITIONS = (
    (
        "Causal",
        "Attention is masked. The predictor is handed inputs and never targets, which the ledger "
        "keeps to itself.",
    ),
    (
        "Full normalized distribution",
        "The ledger takes raw logits over the whole vocabulary, normalizes them itself and looks "
        "the target up itself. A number for the realized token cannot be handed in.",
    ),
    (
        "Score before update",
        "The model adapts to nothing but a scored chunk. The ledger alone makes one, after every "
        "target in it is committed, and never changes a committed loss.",
    ),
    (
        "Single left-to-right pass",
        "A position committed twice is an error, and so is a hole when a chunk is closed. Scores "
        "over less than all targets cannot enter a record.",
    ),
)


def readme(
    runs: Sequence[Run],
    seeds: Seeds,
    meta: Meta,
    track: Track,
    checks: Sequence[Check],
    files: Mapping[str, Mapping[str, Any]],
) -> str:
    """The text. files: name -> bytes and SHA-256, of all files but this one."""
    parts = [
        _head(runs, seeds, meta, track),
        _results(runs, seeds, files["train_gpt.py"]["bytes"]),
        _compliance(runs, checks),
        _recipe(runs),
        _again(runs),
        _lineage(meta),
        _files(files),
    ]
    return "\n\n".join(parts) + "\n"


def _head(runs: Sequence[Run], seeds: Seeds, meta: Meta, track: Track) -> str:
    n = len(runs)
    mean = f"{n}-seed mean" if n > 1 else "one seed"
    facts = [
        f"**val_bpb {seeds.bpb.mean:.5f}**",
        f"{seeds.nats.mean:.5f} nats/token",
        f"largest {megabytes(seeds.largest)}",
        hardware(runs),
        f"track `{track.name}`",
    ]
    return "\n\n".join(
        [
            f"# {meta.name}: val_bpb {seeds.bpb.mean:.5f} ({mean})",
            " | ".join(facts),
            meta.blurb,
            *_author(meta),
        ]
    )


def _author(meta: Meta) -> list[str]:
    """A line with the author's name; no line when none was given."""
    if not meta.author:
        return []
    return [f"By {meta.author} (@{meta.github_id})."]


def _results(runs: Sequence[Run], seeds: Seeds, code: int) -> str:
    headers = ["seed", "stage", "bpb", "nats/token", "tokens", "bytes", "coverage", "ms"]
    lines = [
        [
            run.seed,
            TITLES[stage],
            f"{score.bpb:.8f}",
            f"{score.nats_per_token:.8f}",
            f"{score.tokens:,}",
            f"{score.bytes:,}",
            f"{100 * score.coverage:.0f}%",
            f"{1000 * score.seconds:,.0f}",
        ]
        for run in runs
        for stage, score in run.record.stages.items()
    ]
    return "\n\n".join(
        [
            "## Results",
            seeds.table(markdown=True),
            seeds.words(),
            f"Artifact: the counted bytes of the model file and the {code:,} of `train_gpt.py` as "
            "it lies here. Train ms: training proper, without compilation and quantization. Eval "
            "ms: scoring of the headline stage.",
            "### Every stage",
            render(headers, lines, "rlrrrrrr", markdown=True),
        ]
    )


def _compliance(runs: Sequence[Run], checks: Sequence[Check]) -> str:
    lines = [
        [check.name, check.wanted, check.found, "note" if check.note else "passed"]
        for check in checks
    ]
    conditions = "\n".join(
        f"{i}. **{name}.** {how}" for i, (name, how) in enumerate(CONDITIONS, start=1)
    )
    return "\n\n".join(
        [
            "## Compliance",
            "These checks ran when this folder was written; one that fails keeps it from being "
            "written.",
            render(["check", "wanted", "found", "result"], lines, "llll", markdown=True),
            "`no_slot`, `no_etlb`, `no_ngram_cache` and `no_pre_quant_ttt` in submission.json are "
            "true because the scorer has no code for any of these: it is given a file and a text, "
            "and all that it changes is the model, by the third condition.",
            "The four conditions of issue #1017, and what makes the scorer keep to them:",
            conditions,
            "### Proof by decoding",
            _proofs([proof for run in runs if (proof := RecordedProof.of(run))]),
        ]
    )


def _proofs(proofs: Sequence[RecordedProof]) -> str:
    if not proofs:
        return "None was made. `underpar submit --proof` codes and decodes the text of every run."
    headers = ["seed", "schedule", "adapting", "tokens", "claimed bits", "coded bits", "difference"]
    lines = [
        [
            proof.seed,
            proof.schedule,
            "yes" if proof.adapts else "no",
            f"{proof.claim.tokens:,}",
            f"{proof.claimed_bits:,.0f}",
            f"{proof.coded_bits:,}",
            f"{100 * proof.difference:+.4f}%",
            f"{proof.bpb:.5f}",
        ]
        for proof in proofs
    ]
    return "\n\n".join(
        [
            "The validation text went through an arithmetic coder driven by the scorer's model. A "
            "fresh process was given the model file and the coded bits, nothing else, and came "
            "back with the same text. In lanes the model's context starts anew in each, so that "
            "bpb is not the headline's; claim and code are of the same schedule.",
            render([*headers, "coded bpb"], lines, "rllrrrrr", markdown=True),
        ]
    )


def _recipe(runs: Sequence[Run]) -> str:
    recipe, data = runs[0].recipe, runs[0].data
    text = "normal form of the text" if data.normalized else "text"
    return "\n\n".join(
        [
            "## Recipe",
            f"{summary(recipe)}.",
            f"Trained on {data.train_tokens:,} tokens of shards; scored on {data.val_documents:,} "
            f"documents, {data.val_tokens:,} tokens, {data.val_bytes:,} bytes of the {text} "
            f"(SHA-256 of the tokens {data.val_digest[:12]}).",
            "<details><summary>Every key</summary>",
            f"```toml\n{to_toml(recipe).rstrip()}\n```",
            "</details>",
        ]
    )


def _again(runs: Sequence[Run]) -> str:
    n = processes(runs)
    start = f"torchrun --standalone --nproc-per-node {n}" if n > 1 else "python"
    commands = "\n".join(
        f"SEED={run.seed} RUN_ID=seed{run.seed} {start} train_gpt.py" for run in runs
    )
    ran = "\n".join(f"# seed {run.seed}: {run.record.command or 'not recorded'}" for run in runs)
    torch = " / ".join(versions(runs, "torch"))
    return "\n\n".join(
        [
            "## Run it again",
            f"```bash\npython -m pip install -r requirements.txt\n{commands}\n```",
            "`train_gpt.py` trains, quantizes, packs and scores from inside an otherwise empty "
            "folder, without underpar. `DATA_PATH` names the folder of shards, `TOKENIZER_PATH` "
            "the tokenizer where it does not lie beside them.",
            f"The runs had torch {torch} on {hardware(runs)}, and were started as",
            f"```bash\n{ran}\n```",
        ]
    )


def _lineage(meta: Meta) -> str:
    parents = [
        f"- [PR #{parent.pr}](https://github.com/openai/parameter-golf/pull/{parent.pr})"
        f"{f' (@{parent.by})' if parent.by else ''}: {parent.what}"
        for parent in meta.parents
    ]
    credits = [f"- {credit.who}: {credit.what}" for credit in meta.credits]
    parts = ["## Lineage", "\n".join(parents) or "No earlier entry was named."]
    if credits:
        parts += ["## Credits", "\n".join(credits)]
    return "\n\n".join(parts)


def _files(files: Mapping[str, Mapping[str, Any]]) -> str:
    lines = [[f"`{name}`", f"{facts['bytes']:,}"] for name, facts in files.items()]
    return "\n\n".join(["## Files", render(["file", "bytes"], lines, markdown=True)])
