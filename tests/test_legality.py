"""The four conditions, attacked from outside: what a reviewer would try on the whole scorer.

Position p predicts token p + 1. Changing token t may change the loss of position t - 1, whose
target it is, and of everything after; nothing before. And since the distribution of a position must
not depend on its own target, exp(-loss) summed over all values of that one token must be 1.
"""

from dataclasses import replace

import numpy as np
import pytest

from tests.scoring import LOOPED, MODEL, SCORE, V, small_model, small_stream, with_token
from underpar.score.scorer import score_model

STAGES = ["plain", "sliding", "ttt"]


#: a chunk is one sequence, the shortest text that still has a whole one and a last one to adapt by
SHORT = replace(SCORE, ttt_chunk=16, ttt_epochs=1)


def mass(position, stage, score=lambda stream, stage: fresh(stream, stage)):
    """Sum over the alphabet of the probability given to token ``position + 1``."""
    stream = small_stream(42)  # chunks of 16, 16 and 9
    losses = [score(with_token(stream, position + 1, v), stage)[position] for v in range(V)]
    return float(np.exp(-np.array(losses, dtype=np.float64)).sum())


def fresh(stream, stage):
    return score_model(small_model(), SHORT, stream, stage).nll


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("architecture", [MODEL, LOOPED], ids=["cores", "looped"])
def test_a_later_token_cannot_move_an_earlier_score(architecture, stage):
    stream = small_stream()
    before = score_model(small_model(architecture), SCORE, stream, stage).nll
    for t in (1, 48, 49, 144):
        flipped = with_token(stream, t, (int(stream.tokens[t]) + 5) % V)
        after = score_model(small_model(architecture), SCORE, flipped, stage).nll
        np.testing.assert_array_equal(after[: t - 1], before[: t - 1])
        assert after[t - 1] != before[t - 1]


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("position", [0, 15, 16, 40])  # the ends of chunks and stream
def test_probabilities_of_all_values_of_a_token_sum_to_one(stage, position):
    assert mass(position, stage) == pytest.approx(1.0, abs=2e-6)


def test_the_probe_catches_a_second_pass():
    """Adapt on the whole text, then score it: the model knows the token it predicts."""

    def twice(stream, stage):
        model = small_model()
        score_model(model, SHORT, stream, "ttt")
        return score_model(model, SHORT, stream, stage).nll

    assert mass(15, "sliding", twice) > 1.001
