"""The competition's environment variables, as a recipe.

A published "recipe" is a command line of NAME=VALUE settings in front of a script. This module says
what each of the names that the scripts of #456 and #1413 read becomes here. Pure: it is handed a
mapping and reads no environment.

One name can mean different things to the two scripts (ADAM_WD also decays #456's tables), so the
base recipe decides who reads: with ``model.layout`` "cores" #456's script, with "blocks" #1413's. A
setting that this script would not read, or would read and not use, ends in ``ignored`` with the
reason. A name that neither reads is an error with the nearest name, since that is how a
misspelt setting used to be lost.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from underpar.errors import RecipeError
from underpar.recipe import load
from underpar.recipe.env_names import (
    IGNORED,
    KNOWN,
    MEANING,
    RULES_456,
    SCRIPT_456,
    SCRIPT_1413,
)
from underpar.recipe.keys import KEYS, nearest, ratio
from underpar.recipe.presets import PRESETS
from underpar.recipe.schema import Recipe


@dataclass(frozen=True)
class Mapped:
    """The recipe; name -> "section.key = value" of what counted; name -> reason of what did not."""

    recipe: Recipe
    used: dict[str, str]
    ignored: dict[str, str]


def parse(settings: Iterable[str]) -> dict[str, str]:
    """``NAME=VALUE`` strings as a mapping. RecipeError on one without '='."""
    mapping = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals:
            raise RecipeError(f"setting '{setting}'", wanted="NAME=VALUE")
        mapping[name.strip()] = value.strip()
    return mapping


def pick(environment: Mapping[str, str]) -> dict[str, str]:
    """The known names of a whole process environment. RecipeError on a probable misspelling."""
    for name in environment:
        if looks_like_ours(name):
            raise _unknown(name)
    return {name: value for name, value in environment.items() if name in KNOWN}


def looks_like_ours(name: str) -> bool:
    """Whether a foreign environment variable is probably a misspelt setting (TTT_EPOCH)."""
    if name in KNOWN or not name.isupper():
        return False
    return any(ratio(name, known) > 0.85 for known in MEANING)


def from_env(mapping: Mapping[str, str], base: Recipe) -> Mapped:
    """``base`` changed by the settings, as the script of its layout would have been.

    Raises RecipeError: a name that neither script reads, a value of the wrong type, or a recipe
    that the schema refuses.
    """
    is_456 = base.model.layout == "cores"
    script = SCRIPT_456 if is_456 else SCRIPT_1413
    state = load.flatten(base)
    values: dict[str, Any] = {}
    touched: dict[str, tuple[str, ...]] = {}
    ignored: dict[str, str] = {}
    for name, text in mapping.items():
        if name not in KNOWN:
            raise _unknown(name)
        if name not in script:
            unread = f"the script of {'#456' if is_456 else '#1413'} does not read it"
            ignored[name] = IGNORED.get(name, unread)
            continue
        entry = script[name]
        if isinstance(entry, str):
            touched[name] = (entry,)
            state[entry] = _value(name, text, KEYS[entry])
        else:
            kind, touched[name] = entry
            values[name] = _value(name, text, kind)
    for rule in (_model, _tables, _training, _quantization, _scoring):
        ignored |= rule(values, state, is_456)
    recipe = load.replace_keys(base, state.items())
    final = load.flatten(recipe)
    used = {
        name: ", ".join(f"{key} = {json.dumps(final[key])}" for key in keys)
        for name, keys in touched.items()
        if name not in ignored
    }
    return Mapped(recipe, used, ignored)


def to_toml(mapped: Mapped) -> str:
    """A recipe file, with a comment for every setting."""
    base = mapped.recipe.name if mapped.recipe.name in PRESETS else None
    lines = [f"# {name}: {what}" for name, what in mapped.used.items()]
    lines += [f"# {name} ignored: {reason}" for name, reason in mapped.ignored.items()]
    return "\n".join([*lines, load.to_toml(mapped.recipe, base)])


def _unknown(name: str) -> RecipeError:
    near = nearest(name, KNOWN)
    return RecipeError(f"no script of #456 or #1413 reads '{name}', did you mean '{near}'?")


def _value(name: str, text: str, kind: Any) -> Any:
    """The text as the scripts read it: int(), float(), bool(int()), or the text itself."""
    read: Callable[[str], Any] = {int: int, float: float, bool: int}.get(kind, str.lower)
    try:
        value = read(text)
    except ValueError as error:
        wanted = {int: "an integer", float: "a number", bool: "0 or 1"}[kind]
        raise RecipeError(f"setting {name}", got=repr(text), wanted=wanted) from error
    return bool(value) if kind is bool else value


# A rule edits ``state`` (dotted key -> value) from ``values`` (name -> value); returns what it
# ignored (name -> reason).


def _model(values: dict[str, Any], state: dict[str, Any], is_456: bool) -> dict[str, str]:
    old_width = state["model.d_model"]
    state["model.d_model"] = width = values.get("MODEL_DIM", old_width)
    if "MLP_MULT" in values:
        state["model.d_ff"] = int(values["MLP_MULT"] * width)
    else:
        state["model.d_ff"] = state["model.d_ff"] * width // old_width
    if values.get("EMBEDDING_DIM", width) != width:
        raise RecipeError(
            "setting EMBEDDING_DIM",
            got=values["EMBEDDING_DIM"],
            wanted=f"MODEL_DIM = {width}: tables of another width are not supported",
            do="In the script they add two projections that no optimizer trains.",
        )
    if "MLP_ACTIVATION" in values:
        leaky = values["MLP_ACTIVATION"] == "leaky_relu_sq"  # anything else is relu_sq there
        state["model.activation"] = "leaky_relu2" if leaky else "relu2"
    if "UNIQUE_LAYERS" in values:
        shared = 0 < values["UNIQUE_LAYERS"] < state["model.n_layer"]
        state["model.n_core"] = values["UNIQUE_LAYERS"] if shared else 0
    cores = state["model.n_core"] or state["model.n_layer"]
    state["quant.overrides"] = {  # in the scripts a pattern that matches no tensor does nothing
        path: bits
        for path, bits in state["quant.overrides"].items()
        if not path.startswith("cores.") or int(path.split(".")[1]) < cores
    }
    return {}


def _tables(values: dict[str, Any], state: dict[str, Any], is_456: bool) -> dict[str, str]:
    was_tied = state["model.tied"]
    state["model.tied"] = tied = values.get("TIE_EMBEDDINGS", was_tied)
    if was_tied and not tied:
        state["train.token_lr"] = 0.6  # both scripts' default of EMBED_LR
    read, other = ("TIED_EMBED_LR", "EMBED_LR") if tied else ("EMBED_LR", "TIED_EMBED_LR")
    state["train.token_lr"] = values.get(read, state["train.token_lr"])
    reason = f"read only when embeddings are {'untied' if tied else 'tied'}"
    return {other: reason} if other in values else {}


def _training(values: dict[str, Any], state: dict[str, Any], is_456: bool) -> dict[str, str]:
    if "MAX_WALLCLOCK_SECONDS" in values:
        state["train.seconds"] = max(values["MAX_WALLCLOCK_SECONDS"], 0.0)
    if "TRAIN_BATCH_TOKENS" in values:
        batch = values["TRAIN_BATCH_TOKENS"]
        state |= {"train.batch_tokens": batch, "train.micro_tokens": batch // 8}
    if "ADAM_WD" in values:
        state |= {"train.token_wd": values["ADAM_WD"], "train.scalar_wd": values["ADAM_WD"]}
    if "SWA_ENABLED" in values:
        state["train.average"] = "swa" if values["SWA_ENABLED"] else "none"
    if "LATE_QAT" in values:
        state["train.qat_below"] = (state["train.qat_below"] or 0.1) if values["LATE_QAT"] else 0.0
    return {}


def _quantization(values: dict[str, Any], state: dict[str, Any], is_456: bool) -> dict[str, str]:
    if values.get("ALL_INT5"):
        state |= dict.fromkeys(RULES_456["ALL_INT5"][1], 5)
    if "GPTQ_LITE" in values:
        state["quant.clip"] = "search" if values["GPTQ_LITE"] else "max"
    return {}


def _scoring(values: dict[str, Any], state: dict[str, Any], is_456: bool) -> dict[str, str]:
    if "TRAIN_SEQ_LEN" in values:
        if not is_456 and not state["score.context"]:  # EVAL_SEQ_LEN has its own default
            state["score.context"] = state["model.seq_len"]
        state["model.seq_len"] = values["TRAIN_SEQ_LEN"]
    context = state["score.context"] or state["model.seq_len"]
    stride = values.get("EVAL_STRIDE", state["score.stride"])
    if is_456 and not 0 < stride < context:  # the script then scores without overlap or TTT
        stride, state["score.ttt"] = context, False
    if not values.get("SLIDING_WINDOW_ENABLED", True):
        if state["score.ttt"]:
            return {"SLIDING_WINDOW_ENABLED": "skips a stage; TTT slides all the same"}
        stride = context
    state["score.stride"] = stride
    return {}
