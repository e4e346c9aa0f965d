"""Calibration: the second moments of what each matrix is multiplied with, H = sum x x^T [I, I].

Forward hooks on an ordinary forward pass; there is no second copy of the model. Three facts decide
the bookkeeping:

* A looped or shared layer is the same module called several times. All its passes add up, because
  the one stored matrix has to serve them all.
* q, k and v get the *same* tensor. Its second moment is computed once and counted for all three:
  a hook that sees the very object that the previous hook saw joins its group.
* The tied token table multiplies as the head, so its inputs are the outputs of the final norm.

Sums are float32 whatever the activations are, and are divided by the number of batches (GPTQ's
damping is relative, so the divisor matters only beside the 1 of dead columns). With several ranks
the sums are added over all of them: #1413 let each rank calibrate alone and shipped rank 0's, which
used one eighth of the tokens it had paid for.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from underpar import dist, progress
from underpar.errors import DataError
from underpar.model.gpt import GPT
from underpar.model.layers import Linear

TABLE = "tok_emb.weight"  # the head's matrix when tied


class _Moments:
    """Sums of x x^T, one a distinct input; ``leader`` names the path whose sum a path shares."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.leader: dict[str, str] = {}
        # Held, not just its id: a freed tensor's id may be given to another one.
        self._last: tuple[Tensor, str] | None = None

    def see(self, path: str, x: Tensor) -> None:
        """``path`` is about to be multiplied with x [..., I]."""
        if self._last is not None and self._last[0] is x:
            leader = self._last[1]
        else:
            leader, self._last = path, (x, path)
            flat = x.detach().reshape(-1, x.shape[-1]).float()
            if path not in self.sums:
                self.sums[path] = flat.new_zeros(flat.shape[1], flat.shape[1])
            self.sums[path].addmm_(flat.t(), flat)
        known = self.leader.setdefault(path, leader)
        assert known == leader, "a group of inputs that changes"

    def finish(self, n_batches: int) -> dict[str, Tensor]:
        """Means over the batches of all ranks; paths of one group share one tensor."""
        counts = dist.gather(n_batches)
        if not all(counts):  # judged alike on every rank, so that none waits for another
            got = f"{counts} batches on the ranks" if len(counts) > 1 else "no batch"
            raise DataError("GPTQ calibration", got=got, wanted="at least one batch of tokens each")
        for moment in self.sums.values():
            dist.all_reduce_sum(moment).div_(sum(counts))
        return {path: self.sums[leader] for path, leader in self.leader.items()}


@torch.no_grad()
def hessians(
    model: GPT, batches: Iterable[Tensor], paths: Collection[str] | None = None, total: int = 0
) -> dict[str, Tensor]:
    """Mean over batches of the summed x x^T, float32 [I, I], by the path of the weight x meets.

    batches: token ids [B, T] on any device; each rank brings its own, and the result is the same on
    all. paths: which weights (default: every Linear's and the tied table's). total: how many
    batches to expect, for the progress line alone. The model runs in eval mode, with loops as they
    are, and is left as it was. Raises DataError when a rank has no batch.
    """
    moments = _Moments()
    handles = _watch(model, moments, paths)
    device = next(model.parameters()).device
    training = model.training
    clock, done = progress.Clock(), 0
    model.eval()
    try:
        for ids in batches:
            # All logits, although none is wanted: the final norm must see every position.
            model(ids.to(device).long())
            done += 1
            progress.current().update(
                "calibrating", done, total or done, "", clock.left(done, total)
            )
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
    return moments.finish(done)


def _watch(model: GPT, moments: _Moments, paths: Collection[str] | None) -> list[RemovableHandle]:
    """One hook a wanted weight: its Linear's input; for the tied table the final norm's output."""
    inputs = {
        f"{name}.weight": module
        for name, module in model.named_modules()
        if isinstance(module, Linear)
    }
    handles = [
        module.register_forward_pre_hook(lambda _, args, path=path: moments.see(path, args[0]))
        for path, module in inputs.items()
        if paths is None or path in paths
    ]
    if model.spec.tied and (paths is None or TABLE in paths):
        handles.append(
            model.final_norm.register_forward_hook(lambda _, args, out: moments.see(TABLE, out))
        )
    return handles
