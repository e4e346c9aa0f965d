"""compress and decompress any bytes with the model of an artifact.

Bytes are read and written as streams, a block at a time, so memory does not grow with the file. A
block is a text of its own: tokens, lanes, tables, one arithmetic code. The model is kept from block
to block, so it has adapted to all the text before. A block that the model would make larger is
stored as it is, and after it encoder and decoder begin again with the artifact's weights.

The decoder writes a block's text only after verifying its checksum.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch

from underpar.artifact.load import LoadedModel, load
from underpar.codec import blocks, machine
from underpar.codec.blocks import Block, Header
from underpar.codec.session import Session
from underpar.errors import ArtifactError, CodecError, DataError, RecipeError
from underpar.recipe.plain import section_to_json
from underpar.recipe.schema import ScoreSpec
from underpar.score.lanes import lanes_for

#: Bytes of text in a block, unless told otherwise.
BLOCK_BYTES = 1 << 20

#: Bytes, roughly, that a model block and the header's model fields take besides the payload.
_MODEL_OVERHEAD = 33


@dataclass(frozen=True)
class Options:
    """How to compress.

    exact: the official schedule, one stream; otherwise ``lanes``, 0 to choose by length. portable:
    the file decodes on any machine; the model does not adapt. block_bytes: 0 for a single block.
    settings: score settings instead of the artifact's.
    """

    adapt: bool = True
    exact: bool = False
    portable: bool = False
    lanes: int = 0
    block_bytes: int = BLOCK_BYTES
    settings: ScoreSpec | None = None

    def lanes_of(self, n_targets: int) -> int:
        """Lanes of a text of so many tokens; 0: the exact schedule."""
        if self.exact:
            return 0
        adapts = self.adapt and not self.portable
        return min(self.lanes or lanes_for(n_targets, adapts=adapts), n_targets)


@dataclass(frozen=True)
class Report:
    """Sizes of a text that was compressed or decompressed.

    tokens, nats: of the blocks that the model coded; nats by its own float probabilities.
    """

    text_bytes: int
    file_bytes: int
    tokens: int
    nats: float
    blocks: int
    stored: int


def compress(source: BinaryIO, sink: BinaryIO, artifact: Path, options: Options) -> Report:
    """Write ``source``, compressed with the model at ``artifact``, to ``sink``.

    Raises ArtifactError when the artifact cannot be read. ``sink`` is only appended to; after an
    error it holds no valid file.
    """
    loaded = load(artifact, torch.device("cpu"))
    header = header_for(loaded, options)
    return Writer(sink, Session(loaded, header), options).write(_texts(source, options.block_bytes))


def header_for(loaded: LoadedModel, options: Options) -> Header:
    """The header of a file that this machine writes."""
    spec = options.settings or loaded.score
    dtype = loaded.model.compute_dtype if spec.dtype == "auto" else getattr(torch, spec.dtype)
    return Header(
        artifact=bytes.fromhex(loaded.sha256)[:16],
        machine=machine.this_machine(torch.float64 if options.portable else dtype),
        adapts=options.adapt and not options.portable,
        portable=options.portable,
        settings=section_to_json(spec) if spec != loaded.score else None,
    )


class Writer:
    """Writes texts to a file, and decides of each block how many lanes, and coded or stored."""

    def __init__(self, sink: BinaryIO, session: Session, options: Options) -> None:
        self._sink, self._session, self._options = sink, session, options
        self._text = self._tokens = self._blocks = self._stored = 0
        self._nats = 0.0

    def write(self, texts: Iterator[bytes]) -> Report:
        header = self._session.header
        assert header.machine
        text, after = next(texts, b""), next(texts, None)
        with machine.held_still(header.machine.threads):
            block = self._block(text)
            if after is None and (block is None or block.kind == blocks.STORED):
                header = Header()  # nothing here needs a model
            written = blocks.write_header(self._sink, header)
            while block:
                written += blocks.write_block(self._sink, block)
                block = self._block(after) if after else None
                after = next(texts, None)
        written += blocks.write_end(self._sink, self._blocks, header)
        return Report(self._text, written, self._tokens, self._nats, self._blocks, self._stored)

    def _block(self, text: bytes) -> Block | None:
        if not text:
            return None
        self._blocks += 1
        self._text += len(text)
        block = self._coded(text) if _compressible(text) else None
        if block is None:
            self._stored += 1
            self._session.reset()
            return Block.stored(text)
        return block

    def _coded(self, text: bytes) -> Block | None:
        """A model block, or None where that is no gain."""
        tokens = self._session.stream(text)
        if tokens is None:
            return None
        n = len(tokens) - 1
        lanes = self._options.lanes_of(n)
        payload, nats = self._session.encode(tokens, lanes)
        if len(payload) + _MODEL_OVERHEAD >= len(text):
            return None
        self._tokens += n
        self._nats += nats
        return Block(blocks.MODEL, len(text), zlib.crc32(text), payload, n, lanes)


def decompress(
    source: BinaryIO, sink: BinaryIO, artifact: Path | None, *, force: bool = False
) -> Report:
    """Write the text of a compressed file to ``sink``, block by block, each one verified.

    artifact: the model's file; files of stored blocks need none. force: try although this machine
    adds floats differently. Raises CodecError for a damaged file, another model, another machine.
    """
    header = blocks.read_header(source)
    session: Session | None = None
    still: AbstractContextManager[None] = nullcontext()
    if not header.stored_only:
        session = _session_for(header, artifact, force)
        assert header.machine
        still = machine.held_still(header.machine.threads)
    text_bytes = tokens = stored = number = 0
    with still:
        for number, block in enumerate(blocks.read_blocks(source, header), 1):
            text = block.payload
            if block.kind == blocks.STORED:
                stored += 1
                if session:
                    session.reset()
            else:
                assert session
                text = _decoded(session, block, number)
                tokens += block.n_tokens
            sink.write(text)
            text_bytes += len(text)
    return Report(text_bytes, 0, tokens, math.nan, number, stored)


def _session_for(header: Header, artifact: Path | None, force: bool) -> Session:
    """The session that the header describes; CodecError with another artifact or machine."""
    if artifact is None:
        raise CodecError(
            "this text was compressed with a model",
            wanted=f"the artifact whose SHA-256 begins {_hex(header)}",
            do="Give it with --artifact.",
        )
    loaded = load(artifact, torch.device("cpu"))
    if bytes.fromhex(loaded.sha256)[:16] != header.artifact:
        raise CodecError(
            "this text was compressed with another model",
            got=f"{artifact}, SHA-256 {loaded.sha256[:16]}..",
            wanted=f"the artifact whose SHA-256 begins {_hex(header)}",
            do="Give that one with --artifact.",
        )
    assert header.machine
    here = machine.this_machine(torch.float32)
    why = "" if header.portable else machine.refusal(header.machine, here)
    if why and not force:
        raise CodecError(
            "this machine computes other last bits than the one that compressed this text",
            got=why,
            do="Decompress it there, or compress with --portable; --try-anyway tries.",
        )
    try:
        return Session(loaded, header)
    except RecipeError as error:
        raise CodecError("score settings in the header", got=str(error)) from error


def _decoded(session: Session, block: Block, number: int) -> bytes:
    """The verified text of a model block."""
    try:
        text = session.decode(block)
    except (ArtifactError, DataError, RecipeError) as error:
        raise _not_its_text(number) from error
    if len(text) != block.text_bytes or zlib.crc32(text) != block.text_crc:
        raise _not_its_text(number)
    return text


def _not_its_text(number: int) -> CodecError:
    return CodecError(
        f"block {number} does not decode to the text it was made of",
        do="The file is sound, so this machine's arithmetic differs: decompress it where it was "
        "made, or compress with --portable.",
    )


def _hex(header: Header) -> str:
    return header.artifact.hex() if header.artifact else ""


def _compressible(text: bytes) -> bool:
    """False for what deflate cannot shrink at all: noise, on which a model spends minutes."""
    return len(text) < 1024 or len(zlib.compress(text, 1)) < 0.97 * len(text)


def _texts(source: BinaryIO, size: int) -> Iterator[bytes]:
    """``source`` in pieces of about ``size`` bytes (0: one), cut after a line if there is one."""
    rest = b""
    while piece := source.read(size or -1):
        rest += piece
        while size and len(rest) > size:
            cut = rest.rfind(b"\n", size // 2, size) + 1 or _character_border(rest, size)
            yield rest[:cut]
            rest = rest[cut:]
    if rest:
        yield rest


def _character_border(text: bytes, at: int) -> int:
    """The last place up to ``at`` < len(text) that cuts no UTF-8 character, if this is UTF-8."""
    for cut in range(at, max(at - 4, 0), -1):
        if text[cut] & 0xC0 != 0x80:
            return cut
    return at
