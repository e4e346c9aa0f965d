"""The proof of a score: the text is coded, decoded by a process that has never seen it, compared.

A score is a claim about probabilities: "these tokens would take that many bits". This module writes
those bits: the codec encodes the stream, and a fresh process that gets the model's file and the
coded bytes, nothing else, has to return the text. If it does, from as many bits as claimed, the
score cannot have been made with knowledge that a decoder lacks: no look at the target, no
distribution that sums to more than one, no training on tokens before they were scored.

The bits of the arithmetic code are compared with the claim. The file adds about 60 bytes of header,
checksums and lengths, which no score contains.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tempfile
import time
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from underpar import progress
from underpar.artifact.load import load
from underpar.bits import LN2, Score, bits_per_byte
from underpar.codec import blocks, machine
from underpar.codec.blocks import Block
from underpar.codec.relay import forward
from underpar.codec.session import Session
from underpar.codec.text import Options, header_for
from underpar.data.validation import ValidationSet
from underpar.errors import CodecError
from underpar.score.file import check_tokenizer, score
from underpar.score.lanes import fitted_chunk
from underpar.stages import How

#: Coded bits may differ from claimed bits by this share.
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Proof:
    """claim: the score by the batched, parallel path. coded_bits: of the arithmetic code.

    lanes: 0 for the exact schedule. seconds: of encoding and of the decoding process.
    """

    claim: Score
    coded_bits: int
    file_bytes: int
    lanes: int
    adapts: bool
    text_same: bool
    encode_seconds: float
    decode_seconds: float

    @property
    def claimed_bits(self) -> float:
        return self.claim.nats / LN2

    @property
    def difference(self) -> float:
        """Coded over claimed bits, less one."""
        return self.coded_bits / self.claimed_bits - 1

    @property
    def holds(self) -> bool:
        return self.text_same and abs(self.difference) <= TOLERANCE

    def to_json(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "claim": self.claim.to_json(),
            "claimed_bits": self.claimed_bits,
            "difference": self.difference,
            "holds": self.holds,
        }

    def lines(self) -> list[str]:
        """The proof as a person reads it."""
        n, text = self.claim.tokens, "the same text" if self.text_same else "ANOTHER TEXT"
        how = "exact schedule" if not self.lanes else f"{self.lanes} lanes"
        how += ", adapting" if self.adapts else ", not adapting"
        bpb = bits_per_byte(self.coded_bits * LN2, self.claim.bytes)
        return [
            f"schedule    {how}; {n:,} tokens, {self.claim.bytes:,} bytes of text",
            f"claimed     {self.claimed_bits:,.0f} bits   {self.claim.bpb:.5f} bpb",
            f"coded       {self.coded_bits:,} bits   {bpb:.5f} bpb   "
            f"({self.file_bytes:,} bytes of file)",
            f"difference  {100 * self.difference:+.4f} %",
            f"decoded     {text}, by a fresh process",
            f"encoding    {self.encode_seconds:.1f} s, {n / self.encode_seconds:,.0f} tokens/s",
            f"decoding    {self.decode_seconds:.1f} s, {n / self.decode_seconds:,.0f} tokens/s, "
            "start and loading included",
            "PROVEN" if self.holds else "NOT PROVEN",
        ]


def prove(artifact: Path, validation: ValidationSet, options: Options) -> Proof:
    """Score ``validation`` with the artifact, code it, decode it in a fresh process, compare.

    Raises DataError when the stream was made with another tokenizer; CodecError when the decoding
    process fails.
    """
    loaded = load(artifact, torch.device("cpu"))
    check_tokenizer(loaded.tokenizer, validation)
    header = header_for(loaded, options)
    assert header.machine
    n = validation.n_targets
    lanes = options.lanes_of(n)
    session = Session(loaded, header)
    with progress.task("prove", 3) as step:
        step("coding")
        with machine.held_still(header.machine.threads):
            start = time.perf_counter()
            payload, _ = session.encode(validation.tokens, lanes)
            encode_seconds = time.perf_counter() - start
        text = session.text(validation.tokens)
        out = io.BytesIO()
        blocks.write_header(out, header)
        block = Block(blocks.MODEL, len(text), zlib.crc32(text), payload, n, lanes)
        blocks.write_block(out, block)
        blocks.write_end(out, 1, header)
        progress.current().line(
            f"coded {n:,} tokens in {len(payload):,} bytes; decoding them elsewhere"
        )
        step("decoding in a fresh process")
        start = time.perf_counter()
        same = _decoded_elsewhere(out.getvalue(), artifact) == text
        decode_seconds = time.perf_counter() - start
        step("scoring")
        spec = fitted_chunk(session.spec, n, lanes) if lanes else session.spec
        stage: How = "ttt" if header.adapts else "sliding"
        claim = score(artifact, validation, stage, overrides=spec, lanes=max(lanes, 1)).score
    return Proof(
        claim,
        8 * len(payload),
        len(out.getvalue()),
        lanes,
        header.adapts,
        same,
        encode_seconds,
        decode_seconds,
    )


def _decoded_elsewhere(coded: bytes, artifact: Path) -> bytes:
    """The text that a new process decodes, given the coded bytes, the artifact, nothing else."""
    with tempfile.TemporaryDirectory() as folder:
        file, text = Path(folder) / "text.up", Path(folder) / "text"
        file.write_bytes(coded)
        words = ["decompress", str(file), "--artifact", str(artifact), "--output", str(text)]
        command = [sys.executable, "-m", "underpar", *words, "--relay"]
        with subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ) as child:
            try:
                assert child.stderr
                said = forward(child.stderr)
            except BaseException:  # Ctrl-C among them: the text is no longer wanted
                child.kill()
                raise
        if child.returncode:
            raise CodecError("the decoding process failed", got=said.strip() or None)
        return text.read_bytes()
