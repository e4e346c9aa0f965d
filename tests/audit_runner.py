"""Runs a fixture under the recorder in this process: the shortest way from a Job to an Outcome."""

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
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from underpar.audit import traces
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
