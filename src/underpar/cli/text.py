"""compress, decompress, info, prove, sample: what people do with a model and a text."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from underpar.cli.run import Tokenizer, session
from underpar.progress import use

#: Where ``make demo`` leaves its model.
DEMO = Path("runs/demo/model.upar")
SUFFIX = ".up"

Input = Annotated[str, typer.Argument(metavar="FILE|-", help="A file, or - for stdin.")]
Output = Annotated[
    str | None, typer.Option("--output", "-o", help="Where to; - is stdout.", show_default=False)
]
Artifact = Annotated[
    Path | None,
    typer.Option("--artifact", "-a", help=f"The model; default: {DEMO}, if there is one."),
]
Force = Annotated[bool, typer.Option("--force", "-f", help="Replace an existing file.")]
Adapt = Annotated[
    bool, typer.Option("--adapt/--no-adapt", help="Let the model learn from what was coded.")
]
Exact = Annotated[
    bool, typer.Option("--exact", help="One stream, the official schedule: slow, and the score.")
]
Lanes = Annotated[int, typer.Option(help="Streams coded in step; 0: by the text's length.", min=0)]
Portable = Annotated[
    bool,
    typer.Option("--portable", help="Decodable on any machine; slower, without adapting."),
]


def compress(
    file: Input,
    output: Output = None,
    artifact: Artifact = None,
    adapt: Adapt = True,
    exact: Exact = False,
    lanes: Lanes = 0,
    portable: Portable = False,
    force: Force = False,
) -> None:
    """Compress any file losslessly with a model, which learns from the text as it goes.

    FILE is kept; the result is FILE.up. From stdin, it goes to stdout.
    """
    from underpar.bits import compressed_bpb
    from underpar.codec.text import Options, compress

    options = Options(adapt=adapt, exact=exact, lanes=lanes, portable=portable)
    model = _artifact(artifact)
    target = output or ("-" if file == "-" else file + SUFFIX)
    live = _live(target)
    with session(live=live) as sink, _source(file) as source, _target(target, force) as out:
        done = compress(source, out, model, options)
        bpb = compressed_bpb(done.file_bytes, done.text_bytes)
        sink.line(f"{done.text_bytes:,} bytes -> {done.file_bytes:,} bytes, {bpb:.3f} bits a byte")


def decompress(
    file: Input,
    output: Output = None,
    artifact: Artifact = None,
    force: Force = False,
    try_anyway: Annotated[
        bool, typer.Option("--try-anyway", help="Decode although this machine adds differently.")
    ] = False,
    relay: Annotated[
        bool, typer.Option("--relay", hidden=True, help="Progress as JSON lines, for a program.")
    ] = False,
) -> None:
    """Get a compressed text back, bit for bit. FILE.up becomes FILE."""
    from underpar.codec.relay import Relay
    from underpar.codec.text import decompress
    from underpar.errors import CodecError

    target = output or ("-" if file == "-" else file.removesuffix(SUFFIX))
    if target == file != "-":
        raise CodecError(f"name of {file}", wanted=f"one that ends in {SUFFIX}", do="Or give -o.")
    shown = use(Relay()) if relay else session(live=_live(target))
    with shown, _source(file) as source, _target(target, force) as out:
        decompress(source, out, artifact or (DEMO if DEMO.exists() else None), force=try_anyway)


def info(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .up or .upar file.")],
) -> None:
    """Say what is in a compressed text or in a model's file."""
    from underpar.codec.info import describe

    for line in describe(file):
        typer.echo(line)


def prove(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .upar artifact.")],
    data: Annotated[Path, typer.Option(help="Folder with validation shards.")],
    adapt: Adapt = True,
    exact: Exact = False,
    lanes: Lanes = 0,
    portable: Portable = False,
    tokens: Annotated[int, typer.Option(help="Only the first so many; 0: all.", min=0)] = 0,
    json: Annotated[Path | None, typer.Option(help="Write the proof as JSON, too.")] = None,
    tokenizer: Tokenizer = None,
) -> None:
    """Prove a score: code the held-out text, decode it in a fresh process, compare the bits.

    Exit code 1 when bits differ by more than 0.1 % or the text is not the same.
    """
    from json import dumps

    from underpar import storage
    from underpar.codec.prove import prove
    from underpar.codec.text import Options
    from underpar.data.opening import open_dataset

    options = Options(adapt=adapt, exact=exact, lanes=lanes, portable=portable)
    with session() as sink:
        validation = open_dataset(data, tokenizer).validation()
        proof = prove(file, validation.beginning(tokens) if tokens else validation, options)
        for line in proof.lines():
            sink.line(line)
        if json:
            storage.write_text(json, dumps(proof.to_json(), indent=1) + "\n")
    if not proof.holds:
        raise typer.Exit(1)


def sample(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .upar artifact.")],
    prompt: Annotated[str, typer.Argument(help="How the text begins.")] = "",
    tokens: Annotated[int, typer.Option(help="At most so many.", min=1)] = 200,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest.", min=0.0)] = 0.8,
    top_p: Annotated[
        float, typer.Option(help="Share of probability to draw from.", max=1.0)
    ] = 0.95,
    seed: Annotated[int, typer.Option(help="Of the die.")] = 0,
) -> None:
    """Let a model write on from a prompt."""
    import torch

    from underpar.artifact.load import load
    from underpar.codec.sample import sample

    loaded = load(file, torch.device("cpu"))
    sys.stdout.write(prompt)
    for piece in sample(
        loaded, prompt, tokens=tokens, temperature=temperature, top_p=top_p, seed=seed
    ):
        sys.stdout.write(piece)
        sys.stdout.flush()
    sys.stdout.write("\n")


def _artifact(given: Path | None) -> Path:
    from underpar.errors import CodecError

    if given or DEMO.exists():
        return given or DEMO
    raise CodecError(
        "no model to compress with",
        wanted="a .upar file",
        do="Give one with --artifact, or train one: make demo.",
    )


def _live(target: str) -> bool:
    """False when the text itself goes to the terminal: it would run into the bars."""
    return target != "-" or not sys.stdout.isatty()


@contextmanager
def _source(name: str) -> Iterator[BinaryIO]:
    from underpar.errors import DataError

    if name == "-":
        yield sys.stdin.buffer
        return
    with ExitStack() as stack:
        try:
            source = stack.enter_context(Path(name).open("rb"))
        except OSError as error:
            raise DataError(f"cannot read {name}", got=error.strerror) from error
        yield source


@contextmanager
def _target(name: str, force: bool) -> Iterator[BinaryIO]:
    """Standard output, or a file that appears only when it is whole."""
    from underpar import storage
    from underpar.errors import CodecError

    if name == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    if Path(name).exists() and not force:
        raise CodecError(f"{name} exists already", do="Choose another with -o, or --force.")
    with storage.replacing(Path(name)) as out:
        yield out
