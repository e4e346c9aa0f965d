"""The locked-down child process: a job goes in, an outcome with traces comes out.

The walls are made in `underpar.audit.walls`, the program that stands inside them is
`underpar.audit.jail`, and `underpar.audit.cell` starts and watches it from outside. Here a job
becomes files in a scratch folder, and the files that come back become an `Outcome`; they are a
stranger's, and `underpar.audit.traces` reads them as such.

What a job can reach: its scratch folder (in memory, of bounded size), Python, its packages and the
system's libraries (read-only), the loopback of a network of its own. Its environment is the fixed
list below; what the submission wants set is in job.json, and the child sets it for the script.
"""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import PurePosixPath
from typing import Any

from underpar.audit import traces
from underpar.audit.cell import Ended, Limits, code_folder, execute
from underpar.audit.facts import Job, Outcome, Status, Trace
from underpar.errors import DataError

PORT = 29500  # in a network of one's own they are all free

CHILD = (
    "import runpy, sys; sys.path.insert(0, {code!r}); "
    "runpy.run_module('underpar.audit.child', run_name='__main__', alter_sys=True)"
)
ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "HOME": "{scratch}",
    "TMPDIR": "{scratch}/tmp",
    "LANG": "C.UTF-8",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",
    "CUDA_VISIBLE_DEVICES": "",
    "MASTER_ADDR": "127.0.0.1",
    "GLOO_SOCKET_IFNAME": "lo",
}
REFUSED = (
    "cannot lock in the submission's code: got {got}, wanted user namespaces or bubblewrap. Run "
    "the audit on Linux with one of them, or use --trust for code that you have read"
)

MOST_ERROR = 20_000  # characters of a failed run's last words
MOST_STUBS = 1_000


def run(job: Job, *, trust: bool = False) -> Outcome:
    """Run a job and read what it recorded. Never raises for what the submission does.

    trust: without walls, for code that the caller has read. Status "refused": no walls to be had;
    "timeout", "killed": a limit ended it; "failed": the script or a trace of it is broken.
    Raises DataError for a sibling whose name leads out of the scratch folder.
    """
    take = {}
    for rank in range(job.world):
        take[f"done-{rank}.json"] = traces.MOST_TEXT
        take[f"trace-{rank}.json"] = traces.MOST_TEXT
        take[f"trace-{rank}.npz"] = traces.MOST_FILE
    memory = job.memory_mb << 20
    ended = execute(
        [sys.executable, "-P", "-s", "-B", "-c", CHILD.format(code=code_folder(trust)),
         "{scratch}"],
        _files(job),
        take,
        Limits(job.seconds, memory, memory * job.world),
        environment={
            **ENVIRONMENT,
            "MASTER_PORT": str(_free_port() if trust else PORT),
            "WORLD_SIZE": str(job.world),
        },
        world=job.world,
        trust=trust,
    )  # fmt: skip
    return _outcome(job, ended)


def _free_port() -> int:
    with socket.socket() as handle:
        handle.bind(("127.0.0.1", 0))
        return int(handle.getsockname()[1])


def _files(job: Job) -> dict[str, bytes]:
    """The scratch folder as the child finds it."""
    rest = asdict(job)
    siblings: Mapping[str, bytes] = rest.pop("siblings")
    files = {}
    for name, data in siblings.items():
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\0" in name or not path.parts:
            raise DataError("a file of the submission", got=repr(name), wanted="a name below it")
        files[str(path)] = data
    files["script.py"] = rest.pop("source").encode("utf-8", "surrogateescape")
    files["job.json"] = json.dumps(rest).encode()
    return files


def _outcome(job: Job, ended: Ended) -> Outcome:
    if ended.status == "refused":
        error = REFUSED.format(got=ended.why)
        return Outcome("refused", ended.seconds, (), "", error, (), {})
    status: Status = ended.status
    found: list[Trace] = []
    stubs: dict[str, None] = {}
    meta: dict[str, Any] = {}
    errors = [ended.why] if ended.why else []
    for rank in range(job.world):
        try:
            done = traces.record(_file(ended, f"done-{rank}.json"))
            stubs |= dict.fromkeys(_words(done.get("stubs")))
            if rank == 0 and isinstance(done.get("meta"), dict):
                meta = done["meta"]
            if done.get("status") != "finished":
                errors.append(f"rank {rank}: {done.get('error', 'not finished')!s}")
            arrays, notes = (_file(ended, f"trace-{rank}.{kind}") for kind in ("npz", "json"))
            found.append(traces.read(arrays, notes))
        except traces.BadTrace as error:
            errors.append(f"rank {rank}: {error}")
    if errors:
        status = "failed" if status == "finished" else status
        errors.append(ended.err[-MOST_ERROR:])
    text = "\n".join(error[-MOST_ERROR:] for error in errors if error)
    return Outcome(status, ended.seconds, tuple(found), ended.out, text, tuple(stubs), meta)


def _file(ended: Ended, name: str) -> bytes:
    if name not in ended.files:
        raise traces.BadTrace(f"no {name}")
    return ended.files[name]


def _words(value: object) -> list[str]:
    if not isinstance(value, list):
        return []
    return [str(word)[:200] for word in value[:MOST_STUBS]]
