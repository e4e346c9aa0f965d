"""Depth: which layer runs when, with whose matrices, and how many skips that makes.

Three facts that look alike and are not:

* A *layer* has its own scales and residual mix. A *core* is an attention + MLP pair. Normally each
  layer has its own core; with ``n_core`` set, layer l uses core l mod n_core (depth recurrence).
* A *virtual layer* is one step of the forward pass. Normally there is one a layer; with looping on,
  the segment loop_start..loop_end runs ``1 + loop_extra`` times in a row.
* The list of virtual layers is cut in the middle (rounding down). Each step of the first half, the
  encoder, leaves its output on a stack; each step of the second half, the decoder, first takes the
  latest one off and mixes it in (a U-Net). An odd list gives the decoder one step without a skip.

Decoder step i uses row i of the skip parameters, so the meaning of a row changes when looping is
switched on. The number of rows never does: it follows the looped lists from the start.
"""

from __future__ import annotations

from typing import NamedTuple

from underpar.recipe.schema import ModelSpec


class Order(NamedTuple):
    """Physical layer indices in running order, cut into the two halves of the U-Net."""

    encoder: tuple[int, ...]
    decoder: tuple[int, ...]

    def __len__(self) -> int:
        """Number of virtual layers."""
        return len(self.encoder) + len(self.decoder)


def order(spec: ModelSpec, looping: bool) -> Order:
    """The running order with looping off or on; the same when the spec has no loop."""
    layers = list(range(spec.n_layer))
    if looping and spec.loop_extra:
        segment = layers[spec.loop_start : spec.loop_end + 1]
        after = layers[spec.loop_end + 1 :]
        layers = layers[: spec.loop_start] + segment * (1 + spec.loop_extra) + after
    half = len(layers) // 2
    return Order(tuple(layers[:half]), tuple(layers[half:]))


def skip_rows(spec: ModelSpec) -> int:
    """Rows of ``skip_weights`` and ``skip_gates``, whether or not looping is on."""
    halves = order(spec, looping=True)
    return min(len(halves.encoder), len(halves.decoder))


def core_of(spec: ModelSpec, layer: int) -> int:
    """The core whose matrices a layer uses."""
    return layer % spec.cores


def core_uses(spec: ModelSpec) -> list[int]:
    """How many layers use each core. Loops do not count: they repeat the layer as a whole."""
    return [len(range(core, spec.n_layer, spec.cores)) for core in range(spec.cores)]


def has_xsa(spec: ModelSpec, core: int) -> bool:
    """True on the last ``xsa_last`` cores (cores, not layers: with sharing they differ)."""
    return core >= spec.cores - spec.xsa_last
