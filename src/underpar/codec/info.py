"""A few lines about a file of compressed text or of a model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from underpar.artifact.load import load
from underpar.bits import compressed_bpb
from underpar.codec import blocks
from underpar.codec.machine import describe as describe_machine
from underpar.errors import DataError
from underpar.model import n_params


def describe(path: Path) -> Iterator[str]:
    """Lines about ``path``. Raises CodecError or ArtifactError for a damaged or foreign file."""
    try:
        with path.open("rb") as source:
            if source.read(len(blocks.MAGIC)) != blocks.MAGIC:
                yield from _model(path)
                return
            source.seek(0)
            header = blocks.read_header(source)
            found = list(blocks.read_blocks(source, header))
    except OSError as error:
        raise DataError(f"cannot read {path}", got=error.strerror) from error
    text, size = sum(block.text_bytes for block in found), path.stat().st_size
    yield f"text        {text:,} bytes in {size:,}: {compressed_bpb(size, text):.3f} bits a byte"
    stored = sum(block.kind == blocks.STORED for block in found)
    tokens = sum(block.n_tokens for block in found)
    yield f"blocks      {len(found)}, {stored} of them stored; {tokens:,} tokens"
    if header.artifact and header.machine:
        lanes = sorted({block.lanes for block in found if block.kind == blocks.MODEL})
        names = [str(n) if n else "exact schedule" for n in lanes]
        yield f"lanes       {', '.join(names) or 'none: every block is stored'}"
        yield f"model       SHA-256 {header.artifact.hex()}..  ({_modes(header)})"
        yield f"machine     {'any' if header.portable else describe_machine(header.machine)}"
        if header.settings:
            yield f"settings    {header.settings}"
    else:
        yield "model       none needed"


def _modes(header: blocks.Header) -> str:
    return "adapts as it decodes" if header.adapts else "does not adapt"


def _model(path: Path) -> Iterator[str]:
    loaded = load(path)
    spec = loaded.model.spec
    yield f"model       {n_params(loaded.model):,} parameters, {path.stat().st_size:,} bytes"
    yield (
        f"shape       {spec.n_layer} layers, width {spec.d_model}, {spec.n_head}/"
        f"{spec.n_kv_head} heads, {spec.vocab_size:,} symbols, context {spec.seq_len}"
    )
    yield f"activations {loaded.header['dtype']}"
    yield f"tokenizer   {loaded.tokenizer.kind}, lossless: {loaded.tokenizer.lossless}"
    adapts = f"{loaded.score.ttt_optimizer}, chunks of {loaded.score.ttt_chunk:,} tokens"
    yield f"adaptation  {adapts if loaded.score.ttt else 'off'}"
    yield f"recipe      {loaded.header['recipe']}"
    yield f"SHA-256     {loaded.sha256}"
