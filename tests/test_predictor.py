"""The predictor: batched windows, single positions and token by token are one distribution."""

import numpy as np
import pytest
import torch

from tests.scoring import LOOPED, MODEL, V, small_model, small_stream
from underpar.model import loss
from underpar.score.predictor import Stepwise


@pytest.mark.parametrize("spec", [MODEL, LOOPED], ids=["cores", "looped"])
def test_batches_and_steps_agree(spec):
    model = small_model(spec).eval()
    predictor, tokens = Stepwise(model, 16), small_stream().tokens
    windows = [tokens[i : i + 16] for i in (0, 5, 10)]
    whole = predictor.predict(windows, 0)
    assert whole.shape == (3, 16, V)
    assert whole.dtype == torch.float32
    torch.testing.assert_close(predictor.predict(windows, 11), whole[:, 11:], atol=1e-5, rtol=0)
    for window, rows in zip(windows, whole):
        alone = predictor.predict([window], 0)[0]
        torch.testing.assert_close(alone, rows, atol=1e-5, rtol=0)
    stacked = np.stack(windows)
    got = [predictor.begin(stacked[:, :3])]
    got += [predictor.step(stacked[:, t]) for t in range(3, 16)]
    torch.testing.assert_close(torch.stack(got, 1), whole[:, 2:], atol=1e-5, rtol=0)


def test_short_windows_are_rotated_like_full_ones():
    model = small_model(LOOPED).eval()
    tokens = small_stream().tokens[:24]
    predictor = Stepwise(model, 24)  # longer than the training sequences: the base is rescaled
    full, short = predictor.predict([tokens], 0), predictor.predict([tokens[:9]], 0)
    assert short.shape == (1, 9, V)
    torch.testing.assert_close(short, full[:, :9], atol=1e-5, rtol=0)


def test_training_works_after_predicting():
    model = small_model().eval()
    tokens = small_stream().tokens
    Stepwise(model, 16).predict([tokens[:16]], 0)
    ids = torch.from_numpy(tokens[:17].astype(np.int64))
    loss(model, ids[None, :-1], ids[None, 1:]).backward()
    assert all(p.grad is not None for p in model.parameters())


def test_positions_asked_for_at_once_are_bounded_by_the_alphabet():
    predictor = Stepwise(small_model(), 16)
    assert predictor.max_positions * V <= 1 << 26 < (predictor.max_positions + 1) * V
