"""What some functions come to when nothing has to be checked: source text for the packed file.

Not copies of the originals but replacements, by their names in the readable file; a class that
stands here with ``...`` as its base replaces only the methods that are written out. The tests hold
the results of both files against each other. The text itself is in ``short_run``, ``short_model``
and, for what depends on the recipe, ``short_cases``.
"""

from __future__ import annotations

from collections.abc import Iterator

from underpar.bundle import short_cases as cases
from underpar.bundle.short_model import MODEL
from underpar.bundle.short_run import RUN
from underpar.recipe.schema import Recipe

#: Methods that nothing in a whole run calls; their names are those of others that are called.
_NEEDLESS = """
Predictor.begin Predictor.step Predictor._read GPT.__deepcopy__ ValidationSet.head
_Positioned.state _Positioned._identity SequentialLoader._identity ShuffledLoader._identity
Tokenizer.normalized Muon.state_dict Muon.load_state_dict Optimizers.state_dict
Optimizers.load_state_dict _Shadow.state_dict _Shadow.load_state_dict Score.from_json
Score.__str__ Ledger.nats Ledger.bytes
state_State.save Clock.left Counters.dtype Counters.compiled Counters.stop_reason
"""

#: compressor -> how its package is called
_CODECS = {
    "brotli": ("brotli.compress(data)", "brotli.decompress(data)"),
    "zstd": (
        "zstandard.ZstdCompressor(level=22).compress(data)",
        "zstandard.ZstdDecompressor().decompress(data, max_output_size=size)",
    ),
    "lzma": (
        "lzma.compress(data, lzma.FORMAT_RAW, filters=_LZMA_FILTERS)",
        "lzma.decompress(data, lzma.FORMAT_RAW, None, _LZMA_FILTERS)",
    ),
}


def needless(recipe: Recipe) -> list[str]:
    """Methods, as Class.name, that no run of the recipe calls."""
    return _NEEDLESS.split()


def _from_shards(recipe: Recipe) -> bool:
    return recipe.data.corpus == "shards" and recipe.data.tokenizer == "sentencepiece"


def shortcuts(recipe: Recipe) -> Iterator[str]:
    """The source texts that hold for the recipe, later ones before earlier ones."""
    codec = "lzma" if recipe.quant.compressor == "rans" else recipe.quant.compressor
    pack, unpack = _CODECS[codec]
    yield RUN
    yield MODEL
    yield cases.CODEC.replace("UNPACK", unpack).replace("PACK", pack)
    if codec != "lzma":
        package = pack.partition(".")[0]
        yield f"import {package}"
    if recipe.quant.compressor != "rans":
        yield cases.BYTES
    if _from_shards(recipe):
        yield cases.SHARDS.replace("VOCAB", str(recipe.model.vocab_size))
    if recipe.model.seq_len > 512 and not recipe.score.context:
        yield cases.LONG
    if not recipe.score.ttt_freeze:
        yield cases.NO_FREEZE
    if recipe.quant.clip == "std" and recipe.model.tied:
        yield cases.STD
    train = recipe.train
    if not train.qat_below:
        yield cases.NO_QAT
    if _from_shards(recipe) and train.dtype == train.compile == "auto" and not train.deterministic:
        yield cases.AUTO
