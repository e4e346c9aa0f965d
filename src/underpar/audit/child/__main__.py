"""`python -I -m underpar.audit.child SCRATCH RANK`: run SCRATCH/script.py in the tiny world.

Order matters: the facts are read from the source, files and environment are made, torch is
patched, the recorder starts, the clock is replaced, and then the script runs as `__main__`. The
result `done-<rank>.json` is written whatever happens short of being killed.
"""

from __future__ import annotations

import ast
import contextlib
import json
import os
import random
import re
import sys
import time
import traceback
import types
from pathlib import Path
from typing import Any

from . import advice, hits, rewrite, siblings
from .shrink import Shrinker, Sizes, setting_number
from .swap import swap

_HEADLINE = {
    "vocab": "VOCAB_SIZE",
    "width": "MODEL_DIM",
    "layers": "NUM_LAYERS",
    "heads": "NUM_HEADS",
    "kv_heads": "NUM_KV_HEADS",
    "mlp_mult": "MLP_MULT",
}
_PLACE = re.compile(r"^(/|\.{1,2}/|~)|\.(pt|ptz|pth|bin|np[yz]|xz|lzma|zst|json|so|model|txt|br)$")
_START = time.perf_counter()
_now = time.perf_counter


def _sizes(job: dict[str, Any]) -> Sizes:
    sizes = Sizes(vocab=int(job["stream"]["vocab"]))
    for name, value in (job.get("shrink") or {}).items():
        if hasattr(sizes, name):
            setattr(sizes, name, value)
    return sizes


def _shrinker(job: dict[str, Any], source: str, trees: list[ast.Module]) -> Shrinker:
    found: dict[str, Any] = {}
    for tree in reversed(trees):  # the script itself last: it wins
        found |= rewrite.literals(tree)
    for tree in reversed(trees):
        found |= {
            k: v for k, v in rewrite.defaults(tree).items() if v is not None or k not in found
        }
    sizes = _sizes(job)
    if not re.search(r"val_loss_every\s*(>|!=|and\b)", source):
        sizes.validate_every = 10**9  # used as a divisor without asking whether it is 0
    return Shrinker(sizes, job.get("environment") or {}, found)


def _is_place(text: str) -> bool:
    return bool(_PLACE.search(text))


def _environment(
    job: dict[str, Any], shrinker: Shrinker, base: dict[str, str], scratch: Path
) -> None:
    """Set the script's environment: the headline's settings, made small, and the tiny world."""
    given = shrinker.environment
    for name in sorted({*given, *shrinker.defaults, *shrinker.sizes.environment}):
        value = shrinker.setting(name)
        place = value is not None and _is_place(value) and not (scratch / value).exists()
        if value is not None and not place:
            os.environ[name] = value
    os.environ.update(base)
    os.environ["TMPDIR"] = str(scratch / "tmp")
    _keep_small(shrinker, frozenset(base))
    (scratch / "tmp").mkdir(exist_ok=True)


def _keep_small(shrinker: Shrinker, places: frozenset[str]) -> None:
    """Scripts that set their own environment set it small, and leave the tiny files in place."""
    kind: Any = type(os.environ)
    write = kind.__setitem__

    def put(self: Any, name: str, value: str) -> None:
        v = setting_number(value)
        if name not in places:
            write(self, name, value if v is None else str(shrinker.value(name, v)))

    kind.__setitem__ = put


def _patch(job: dict[str, Any], scratch: Path, rank: int, source: str, shrinker: Shrinker) -> Any:
    from . import (
        stubs_attention,
        stubs_cuda,
        stubs_dist,
        stubs_modal,
        stubs_modules,
        stubs_process,
        stubs_sentencepiece,
        stubs_time,
        stubs_torch,
        stubs_triton,
        world,
    )

    tiny = world.World(scratch, job["stream"], rank)
    _environment(
        job, shrinker, tiny.environment(rank, int(job["world"]), int(job["seed"])), scratch
    )
    stubs_torch.install(int(job["seed"]))
    stubs_cuda.install()
    stubs_dist.install(tiny.root / "wire", rank, int(job["world"]))
    modules = {
        "sentencepiece": stubs_sentencepiece.module(tiny.pieces),
        "modal": stubs_modal.module(),
    }
    modules |= stubs_attention.modules() | stubs_triton.modules()
    stubs_modules.install(modules, rewrite.guarded_imports(ast.parse(source)))
    stubs_process.install(tiny.places)
    world.redirect(tiny, source)
    budget = shrinker.headline("MAX_WALLCLOCK_SECONDS") or 600.0
    steps = min(shrinker.sizes.steps, int(shrinker.headline("ITERATIONS") or shrinker.sizes.steps))
    stubs_time.install(float(budget), steps)
    return tiny


class _Silent:
    """Stands in for the recorder where there is none."""

    def start(self, *_args: Any) -> None: ...

    def finish(self) -> None: ...


def _recorder() -> Any:
    try:
        from . import recorder
    except ImportError:
        return _Silent()
    return recorder


def _count_parameters(meta: dict[str, Any]) -> None:
    import torch

    apply = torch.nn.Module._apply

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        size = sum(p.numel() for p in self.parameters())
        meta["parameters"] = max(meta.get("parameters", 0), size)
        return apply(self, *args, **kwargs)

    swap(torch.nn.Module, _apply=counted)


def _execute(scratch: Path, job: dict[str, Any], tree: ast.Module, meta: dict[str, Any]) -> None:
    from . import stubs_modal

    path = str(scratch / "script.py")
    code = compile(tree, path, "exec", dont_inherit=True)
    module = types.ModuleType("__main__")
    module.__file__ = path

    def loaded() -> None:
        meta["import_seconds"] = round(_now() - _START, 3)  # with torch and the tiny world

    module.__dict__[rewrite.LOADED] = loaded
    sys.modules["__main__"] = module
    sys.argv = [path]
    try:
        exec(code, module.__dict__)
        stubs_modal.run_entrypoint()
    except SystemExit as stop:
        if stop.code not in (None, 0):
            raise
    meta.setdefault("import_seconds", None)


def _run(scratch: Path, rank: int, job: dict[str, Any], meta: dict[str, Any]) -> None:
    import numpy as np
    import torch

    source = (scratch / "script.py").read_text(encoding="utf-8")
    named = scratch / Path(job["script_name"]).name
    if not named.exists():
        named.write_text(source, encoding="utf-8")
    tree = ast.parse(source, str(scratch / "script.py"))
    shrinker = _shrinker(job, source, [tree, *siblings.sources(scratch)])
    meta |= {short: shrinker.headline(name) for short, name in _HEADLINE.items()}
    tiny = _patch(job, scratch, rank, source, shrinker)
    meta["literals"] = rewrite.rewrite(tree, shrinker)
    rewrite.mark_guard(tree)
    siblings.install(scratch, shrinker)
    meta["environment"] = {
        n: os.environ[n] for n in sorted(shrinker.defaults) if n in os.environ and "PATH" not in n
    }
    random.seed(job["seed"])
    np.random.seed(job["seed"] % 2**32)  # noqa: NPY002  (the script's own generator)
    torch.manual_seed(job["seed"])
    _count_parameters(meta)
    recorder = _recorder()
    meta["start_seconds"] = round(_now() - _START, 3)
    begin = _now()
    recorder.start(scratch, rank, tiny.tokens)
    try:
        _execute(scratch, job, tree, meta)
    except BaseException as error:
        with contextlib.suppress(Exception):  # the error itself is what must be told
            meta["advice"] = advice.advise(error, scratch, shrinker)
        raise
    finally:
        meta["script_seconds"] = round(_now() - begin, 3)
        recorder.finish()


def main(argv: list[str]) -> int:
    """Run one rank; 0 when the script came to its end."""
    scratch, rank = Path(argv[1]).resolve(), int(argv[2])
    os.chdir(scratch)
    sys.dont_write_bytecode = True
    job = json.loads((scratch / "job.json").read_text(encoding="utf-8"))
    result: dict[str, Any] = {"status": "failed", "stubs": [], "meta": {}}
    replace, write = os.replace, Path.write_text
    try:
        _run(scratch, rank, job, result["meta"])
        result["status"] = "finished"
    except BaseException:
        result["error"] = traceback.format_exc()[-8000:]
        sys.stderr.write(result["error"])
    finally:
        result["stubs"] = hits.names()
        part = scratch / f"done-{rank}.part"
        write(part, json.dumps(result), encoding="utf-8")
        replace(part, scratch / f"done-{rank}.json")
        sys.stdout.flush()
    return 0 if result["status"] == "finished" else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv))
