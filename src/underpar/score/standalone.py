"""The scorer as a program of its own: the entry of the packed file.

    python packed.py model.upar DATA_FOLDER [--stage ttt]

Scores the artifact on the folder's validation shards with the artifact's own tokenizer and
settings, and prints one line. Under torchrun the windows are shared between the processes.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from underpar import dist, progress
from underpar.artifact.pack import load
from underpar.data.shards import shard_files
from underpar.data.validation import ValidationSet
from underpar.errors import UnderparError
from underpar.score.scorer import score


def main(argv: list[str]) -> int:
    """Score; returns the exit status: 0, or 1 with a one-line reason on stderr."""
    parser = argparse.ArgumentParser(description="Score a .upar artifact on validation shards.")
    parser.add_argument("artifact", type=Path)
    parser.add_argument("data", type=Path, help="folder with fineweb_val_*.bin")
    parser.add_argument("--stage", choices=("plain", "sliding", "ttt"), default="ttt")
    options = parser.parse_args(argv)
    try:
        with dist.processes():
            tokenizer = load(options.artifact).tokenizer
            files = shard_files(options.data, "val")
            validation = ValidationSet.from_shards(files, tokenizer)
            result = score(options.artifact, validation, options.stage)
            with progress.use(
                progress.Progress(stream=sys.stdout, quiet=not dist.is_main())
            ) as out:
                tokens, seconds = result.score.tokens, result.score.seconds
                out.line(f"{options.stage}: {result.score}  {tokens} tokens  {seconds:.1f} s")
    except UnderparError as error:
        with progress.use(progress.Progress(stream=sys.stderr)) as out:
            out.line(f"error: {error}")
        return 1
    return 0
