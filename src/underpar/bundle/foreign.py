"""Attributes that both our classes and objects of other packages have.

What such a name means cannot be told from the text, so these names stay as they are, and methods
with them keep all their parameters. A test compares the table with the packages' names.
"""

from __future__ import annotations

_NAMES = """
T _base _cache _check _data _log _muon _parameters _random advance append apply average base bits
block_size bos_id byte bytes classes clip close compile compress core cos count data decode decoder
decompress dequantize device digest dtype elements empty encode encoder end eps errors eval file
forward get grad hooks identity index info items join keys layout line load_state_dict lr mT
model name overrides parameters parts path pop qat read require save seed sha256 shape sin size
split start state state_dict step stop stride take to to_bytes total train update values vocab_size
windows write writeable zero_grad
"""
FOREIGN = frozenset(_NAMES.split())
