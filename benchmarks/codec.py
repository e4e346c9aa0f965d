"""The text codec on four kinds of text: size beside general compressors, speed, where time goes.

    python benchmarks/codec.py --artifact runs/demo/model.upar --data runs/data/FOLDER --novel PATH

Four parts. *kinds*: every text through every compressor, alone and with the model's training text
as prior, and through the codec, with and without adaptation, there and back. *lanes*: the opening
of the held-out stream in more and more lanes, against the exact schedule, which is coded on a short
piece (it is slow) and scored on the whole. *portable*: the same opening in portable arithmetic.
The result is written after each part; ``unfinished`` lists what it lacks. A text that does not come
back is an error. Seconds are of coding, without reading the model's file, which stands beside them.
"""

from __future__ import annotations

import argparse
import io
import shlex
import shutil
import sys
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from underpar.bundle.closure import SOURCES
from underpar.bundle.pack import pack_module

import codec_texts
from codec_texts import Text
from codec_watch import Stopwatch
from common import write
from underpar import progress
from underpar.artifact.load import load
from underpar.bits import LN2, bits_per_byte, compressed_bpb
from underpar.codec import blocks, codec, machine, session
from underpar.codec.blocks import Block
from underpar.codec.tables import split_notes
from underpar.codec.text import Options
from underpar.data.opening import open_dataset
from underpar.data.validation import ValidationSet
from underpar.errors import CodecError
from underpar.report.compressors import measure
from underpar.score.file import score

LANES = (8, 16, 32)
#: Tokens of the piece that the exact schedule codes: half a minute to two minutes each way.
EXACT_TOKENS = 4096

#: What a decoder's packed file is made of: its bytes are the "code" of a compressed text.
DECODER = '''\
"""Decompress: python packed.py FILE.up MODEL.upar TEXT"""

from pathlib import Path

from underpar.codec.text import decompress


def main(argv):
    with open(argv[0], "rb") as source, open(argv[2], "wb") as sink:
        decompress(source, sink, Path(argv[1]))
    return 0
'''


@dataclass(frozen=True)
class Model:
    """The artifact, and all bytes that a receiver of text needs once."""

    path: Path
    file_bytes: int
    code_bytes: int

    @property
    def shipped(self) -> int:
        return self.file_bytes + self.code_bytes


def decoder_bytes() -> int:
    """Length of one packed file that decompresses, made as the scorer's is."""
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "underpar"
        shutil.copytree(SOURCES / "underpar", package, ignore=shutil.ignore_patterns("__pycache__"))
        (package / "unpack.py").write_text(DECODER, encoding="utf-8")
        return len(pack_module("underpar.unpack", Path(folder)).encode())


def measure_kind(text: Text, prior: bytes, model: Model, cache: Path) -> dict[str, Any]:
    """One text: a row for each compressor, one for the codec with and without adaptation."""
    say = progress.current().line
    say(f"{text.title}: {len(text.data):,} bytes of {text.source}")
    rows = []
    for row in measure(text.data, prior, cache=cache):
        known = {"alone_bpb": row.alone_bpb, "with_prior_bpb": row.with_prior_bpb}
        rows.append({**asdict(row), "label": row.label, **known})
        say(f"  {row.label:<28} {row.missing or _bpbs(row.alone_bpb, row.with_prior_bpb)}")
    ours = [round_trip(text.data, model, adapt) for adapt in (False, True)]
    return {**text.facts(), "compressors": rows, "underpar": ours}


def _bpbs(alone: float | None, with_prior: float | None) -> str:
    return f"{alone:.3f} alone, {with_prior:.3f} with the training text"


def round_trip(data: bytes, model: Model, adapt: bool) -> dict[str, Any]:
    """Through a file in memory and back, as the command line does it, at the default settings."""
    there, back, file, text = Stopwatch(), Stopwatch(), io.BytesIO(), io.BytesIO()
    with there.running():
        report = codec.compress(io.BytesIO(data), file, model.path, Options(adapt=adapt))
    file.seek(0)
    with back.running():
        codec.decompress(file, text, model.path)
    _require(text.getvalue() == data, "a text")
    file.seek(0)
    found = list(blocks.read_blocks(file, blocks.read_header(file)))
    facts = {
        "adapts": adapt,
        "bytes": report.file_bytes,
        "bpb": compressed_bpb(report.file_bytes, len(data)),
        "shipped_bytes": report.file_bytes + model.shipped,
        "shipped_bpb": compressed_bpb(report.file_bytes + model.shipped, len(data)),
        "tokens": report.tokens,
        "nats": report.nats,
        "blocks": report.blocks,
        "stored": report.stored,
        "lanes": [block.lanes for block in found],
        "encode": there.facts(report.tokens),
        "decode": back.facts(report.tokens),
    }
    _say_speed(f"underpar, {_how(adapt)}", facts)
    return facts


def coded(path: Path, stream: ValidationSet, options: Options, lanes: int) -> dict[str, Any]:
    """A stream as one block, decoded by a model of its own. Bits are the payload's alone."""
    n, there, back = stream.n_targets, Stopwatch(), Stopwatch()
    loaded = load(path, torch.device("cpu"))
    header = codec.header_for(loaded, options)
    sender = session.Session(loaded, header)
    receiver = session.Session(load(path, torch.device("cpu")), header)
    with machine.held_still(torch.get_num_threads()):
        with there.running():
            payload, nats = sender.encode(stream.tokens, lanes)
        text = sender.text(stream.tokens)
        block = Block(blocks.MODEL, len(text), zlib.crc32(text), payload, n, lanes)
        with back.running():
            same = receiver.decode(block) == text
    _require(same, f"the stream in {lanes} lanes")
    facts = {
        "lanes": lanes,
        "adapts": header.adapts,
        "portable": header.portable,
        "tokens": n,
        "bits": 8 * len(payload),
        "bpb": compressed_bpb(len(payload), stream.true_bytes),
        "nats": nats,
        "encode": there.facts(n),
        "decode": back.facts(n),
    }
    if header.portable:
        facts["notes"] = len(split_notes(payload)[0])
    how = "exact schedule" if not lanes else f"{lanes} lanes"
    _say_speed(f"{how}, {_how(header.adapts)}{', portable' * header.portable}", facts)
    return facts


def measure_lanes(path: Path, piece: ValidationSet, short: ValidationSet) -> dict[str, Any]:
    """What lanes cost in bits and gain in speed; ``short`` is what the exact schedule codes."""
    progress.current().line(f"lanes: {piece.n_targets:,} tokens, and {short.n_targets:,} exactly")
    scored = []
    for adapts in (False, True):
        exact = score(path, piece, "ttt" if adapts else "sliding").score
        bpb = bits_per_byte(exact.nats, exact.bytes)
        progress.current().line(f"  exact schedule, {_how(adapts)}: {bpb:.4f} bpb, scored")
        scored.append(
            {"adapts": adapts, "tokens": exact.tokens, "bits": exact.nats / LN2, "bpb": bpb}
        )
    modes = [Options(adapt=False), Options()]
    return {
        "scored_exactly": scored,
        "coded_exactly": [coded(path, short, mode, 0) for mode in modes],
        "coded": [coded(path, piece, mode, lanes) for lanes in LANES for mode in modes],
    }


def measure_portable(path: Path, piece: ValidationSet) -> list[dict[str, Any]]:
    """The ordinary way without adaptation, then the portable one, in as many lanes."""
    progress.current().line(f"portable: {piece.n_targets:,} tokens")
    modes = Options(adapt=False), Options(adapt=False, portable=True)
    return [coded(path, piece, mode, LANES[0]) for mode in modes]


def _say_speed(name: str, facts: dict[str, Any]) -> None:
    speeds = " / ".join(f"{facts[way]['tokens_per_second']:,.0f}" for way in ("encode", "decode"))
    progress.current().line(f"  {name}: {facts['bpb']:.4f} bpb, {speeds} tokens/s there / back")


def _how(adapts: bool) -> str:
    return "adapting" if adapts else "not adapting"


def _require(same: bool, what: str) -> None:
    if not same:
        raise CodecError(f"{what} did not come back as it was")


def main() -> None:
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    dataset = open_dataset(arguments.data)
    size = arguments.artifact.stat().st_size
    model = Model(arguments.artifact, size, decoder_bytes())
    prior = codec_texts.training_text(dataset)
    files = dict(item.split("=", 1) for item in arguments.text)
    kinds = [*arguments.kinds.split(","), *(n for n in files if n not in arguments.kinds)]
    paths = {name: Path(path) for name, path in files.items()}
    found, missing = codec_texts.texts(kinds, dataset, arguments.novel, paths, arguments.limit)
    piece = dataset.validation().beginning(arguments.slice)
    payload: dict[str, Any] = {
        "command": shlex.join(["python", *sys.argv]),
        "threads": arguments.threads,
        "artifact": {"file_bytes": size, "code_bytes": model.code_bytes},
        "prior_bytes": len(prior),
        "missing": missing,
        "kinds": {},
    }
    work: dict[str, Callable[[], Any]] = {
        text.kind: lambda text=text: measure_kind(text, prior, model, arguments.cache)
        for text in found
    }
    short = piece.beginning(EXACT_TOKENS)
    work["lanes"] = lambda: measure_lanes(model.path, piece, short)
    work["portable"] = lambda: measure_portable(model.path, piece)
    with progress.use(progress.Progress()) as out:
        for kind, reason in missing.items():
            out.line(f"no text of kind '{kind}': {reason}")
        for i, (name, run) in enumerate(work.items(), 1):
            place = payload["kinds"] if name in {text.kind for text in found} else payload
            place[name] = run()
            if not arguments.no_write:
                out.line(str(write("codec", {**payload, "unfinished": list(work)[i:]})))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--artifact", type=Path, default=Path("runs/demo/model.upar"))
    parser.add_argument("--data", type=Path, required=True, help="the folder it was trained on")
    parser.add_argument("--kinds", default="speeches,code,language,novel", help="comma separated")
    parser.add_argument("--novel", type=Path, help="text, folder or JSONL with novels")
    parser.add_argument("--text", action="append", default=[], metavar="KIND=PATH")
    parser.add_argument("--limit", type=int, default=0, help="bytes of each text; 0: all")
    parser.add_argument("--slice", type=int, default=32_768, help="tokens for lanes and portable")
    parser.add_argument("--cache", type=Path, default=Path("runs/data/compressors.json"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-write", action="store_true", help="print only")
    return parser.parse_args()


if __name__ == "__main__":
    main()
