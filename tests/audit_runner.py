"""Short ways from a Job to an Outcome: a fixture under the recorder in this process; no jail."""

from __future__ import annotations

import builtins
import contextlib
import io
import json
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from tests import children
from underpar.audit import traces
from underpar.audit.cell import Ended, Limits
from underpar.audit.child import __main__ as child
from underpar.audit.child import recorder, shards, stubs_sentencepiece
from underpar.audit.child.pieces import Pieces
from underpar.audit.facts import Job, Outcome, Submission

SCRIPTS = Path(__file__).parent / "audit_scripts"
TRAIN = 4096


def submission(name: str) -> Submission:
    path = SCRIPTS / f"{name}.py"
    source = path.read_text()
    return Submission(path.parent, path, source, False, {path.name: len(source)}, {}, "", {})


def run(job: Job) -> Outcome:
    """Execute the script once; world size 1 only."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        spec = asdict(job.stream)
        notes = {"stream": spec, "shrink": dict(job.shrink), "seed": job.seed}
        (scratch / "job.json").write_text(json.dumps(notes))
        tokens = shards.stream(spec)
        shards.write_shard(scratch / "data" / "fineweb_val_000000.bin", tokens)
        shards.write_shard(
            scratch / "data" / "fineweb_train_000000.bin", shards.train_stream(spec, TRAIN)
        )
        status, error = _execute(job, scratch, tokens)
        trace = traces.read(
            (scratch / "trace-0.npz").read_bytes(), (scratch / "trace-0.json").read_bytes()
        )
    return Outcome(status, time.monotonic() - started, (trace,), "", error, (), {})


def forked(
    program: Sequence[str],
    files: Mapping[str, bytes],
    take: Mapping[str, int],
    limits: Limits,
    *,
    environment: Mapping[str, str],
    **_: object,
) -> Ended:
    """In place of `cell.execute` in the sandbox: the child where torch is loaded already; no jail.

    One process, a script of our own.
    """
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        for name, data in files.items():
            (scratch / name).write_bytes(data)
        started = time.monotonic()
        env = {name: text.replace("{scratch}", folder) for name, text in environment.items()}
        ended = children.end(children.call(child.main, ["child", folder, "0"], **env), code=None)
        made = {name: (scratch / name).read_bytes() for name in take if (scratch / name).exists()}
    status = "failed" if ended.code else "finished"
    return Ended(status, time.monotonic() - started, ended.out, ended.err, made)


def _execute(job: Job, scratch: Path, tokens: np.ndarray) -> tuple[str, str]:
    environment = dict(os.environ)
    os.environ.update(job.environment)
    os.environ.update(
        DATA_PATH=str(scratch / "data"), VOCAB_SIZE=str(job.stream.vocab), TRAIN_SEQ_LEN="64"
    )
    os.environ["NGRAM_BUCKETS"] = str(job.shrink["buckets"])
    real = sys.modules.get("sentencepiece")
    sys.modules["sentencepiece"] = stubs_sentencepiece.module(Pieces(job.stream.vocab))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(job.seed)
    recorder.start(scratch, 0, tokens)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            code = builtins.compile(job.source, "script.py", "exec")
            exec(code, {"__name__": "__main__"})
        return "finished", ""
    except Exception:
        return "failed", traceback.format_exc()
    finally:
        recorder.finish()
        torch.set_num_threads(threads)
        os.environ.clear()
        os.environ.update(environment)
        sys.modules.pop("sentencepiece")
        if real is not None:
            sys.modules["sentencepiece"] = real
