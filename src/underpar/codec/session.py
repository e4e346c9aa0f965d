"""A model that codes one text after the other; encoder and decoder use the same class."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from underpar.artifact.load import LoadedModel
from underpar.codec.blocks import SLACK, Block, Header
from underpar.codec.lockstep import Lockstep, Shape, Tables
from underpar.codec.tables import GridTables, float_tables, split_notes
from underpar.data.bytetokens import ByteTokens
from underpar.entropy.range_coder import Cumulative, Decoder, Encoder, decode_rows, encode_rows
from underpar.errors import CodecError
from underpar.recipe.load import section_from_json
from underpar.recipe.schema import ScoreSpec
from underpar.score.lanes import cut, fitted_chunk


class Session:
    """loaded: its model is cast to the header's dtype, and trained in place if it adapts."""

    def __init__(self, loaded: LoadedModel, header: Header) -> None:
        assert header.machine is not None
        self.header, self._model, self._texts = header, loaded.model, 0
        self._bytes, self._bos = ByteTokens(loaded.tokenizer), loaded.tokenizer.bos_id
        spec = loaded.score
        if header.settings is not None:
            spec = section_from_json(ScoreSpec, header.settings)
        self.spec = replace(spec, context=spec.context or loaded.model.spec.seq_len)
        self._model.compute_dtype = getattr(torch, header.machine.dtype)
        if header.portable:
            self._model.double()
        self._start = {path: value.clone() for path, value in self._model.state_dict().items()}
        self._lockstep = Lockstep(self._model, self.spec, adapt=header.adapts)

    def reset(self) -> None:
        """Return the model to the artifact's weights and forget what was coded."""
        self._model.load_state_dict(self._start)
        self._lockstep = Lockstep(self._model, self.spec, adapt=self.header.adapts)

    def stream(self, text: bytes) -> NDArray[np.uint16] | None:
        """BOS and the tokens of ``text``; None when the tokenizer cannot represent it."""
        tokens = self._bytes.encode(text)
        if tokens is None or len(tokens) > len(text) + SLACK:
            return None
        return np.concatenate((np.array([self._bos], np.uint16), tokens))

    def text(self, tokens: NDArray[np.uint16]) -> bytes:
        """The bytes that the tokens of a stream stand for; BOS stands for none."""
        return self._bytes.decode(tokens)

    def encode(self, tokens: NDArray[np.uint16], lanes: int) -> tuple[bytes, float]:
        """Payload of a stream [N], whose first token is not coded, and its nats.

        lanes: 0 for the exact schedule.
        """
        shape = self._shape(len(tokens) - 1, lanes)
        writer = _Writing(cut(tokens, shape.lanes))
        grid = GridTables() if self.header.portable else None
        coded = self._lockstep.run(
            shape, int(tokens[0]), grid or float_tables, writer, self._task("compress")
        )
        return (grid.notes() if grid else b"") + writer.encoder.finish(), coded.nats

    def decode(self, block: Block) -> bytes:
        """The text of a model block, not verified.

        Raises ArtifactError or CodecError for a payload that no encoder can have written.
        """
        payload = block.payload
        if block.n_tokens < max(block.lanes, 1):
            got = f"{block.n_tokens} tokens in {block.lanes} lanes"
            raise CodecError("model block", got=got, wanted="a token or more in each lane")
        tables: Tables = float_tables
        if self.header.portable:
            near, payload = split_notes(payload)
            tables = GridTables(near)
        reader = _Reading(payload)
        shape = self._shape(block.n_tokens, block.lanes)
        coded = self._lockstep.run(shape, self._bos, tables, reader, self._task("decompress"))
        reader.decoder.finish()
        return self.text(coded.tokens)

    def _task(self, what: str) -> str:
        """Name for the progress line: a long file is many texts, one after the other."""
        self._texts += 1
        return what if self._texts == 1 else f"{what}, text {self._texts}"

    def _shape(self, n_targets: int, lanes: int) -> Shape:
        if not lanes:
            return Shape(n_targets, 1, self.spec.ttt_chunk)
        return Shape(n_targets, lanes, fitted_chunk(self.spec, n_targets, lanes).ttt_chunk)


class _Writing:
    """The encoder's coder: knows the tokens and writes them."""

    def __init__(self, lanes: list[NDArray[np.uint16]]) -> None:
        self._lanes, self.encoder = lanes, Encoder()

    def code(self, lanes: list[int], position: int, cumulative: Cumulative) -> NDArray[np.uint16]:
        tokens = np.array([self._lanes[lane][position + 1] for lane in lanes], np.uint16)
        encode_rows(self.encoder, cumulative, tokens)
        return tokens


class _Reading:
    """The decoder's coder: reads them."""

    def __init__(self, payload: bytes) -> None:
        self.decoder = Decoder(payload)

    def code(self, lanes: list[int], position: int, cumulative: Cumulative) -> NDArray[np.uint16]:
        return decode_rows(self.decoder, cumulative)
