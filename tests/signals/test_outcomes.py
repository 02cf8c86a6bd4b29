"""The fixed grids of outcomes."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.signals import outcomes
from stream.signals.outcomes import CHOSEN, NEGATIVE, POSITIVE, SCORE_BINS, SCORE_EDGES, ModelSettings
from stream.wire.internal import ScoreOf


def cell(score: float, of: ScoreOf = ScoreOf.POSITIVE, *, known: bool = False, positive: bool = False) -> int:
    return int(outcomes.score_cells(np.array([score]), np.array([int(of)]), np.array([known]), np.array([positive]))[0])


def test_the_score_grid_is_symmetric_and_one_half_is_an_edge() -> None:
    assert len(SCORE_EDGES) == SCORE_BINS - 1
    assert SCORE_EDGES[SCORE_BINS // 2 - 1] == 0.5
    assert (SCORE_EDGES + SCORE_EDGES[::-1] == 1).all()
    assert (np.diff(SCORE_EDGES) > 0).all()
    logits = np.log(SCORE_EDGES / (1 - SCORE_EDGES))
    assert np.diff(logits) == pytest.approx(0.3, abs=1e-4)


def test_zero_and_one_are_in_the_outer_bins() -> None:
    assert cell(0.0, known=True) == NEGATIVE * SCORE_BINS
    assert cell(1.0, known=True, positive=True) == POSITIVE * SCORE_BINS + SCORE_BINS - 1


@given(score=st.floats(0, 1), known=st.booleans(), positive=st.booleans())
def test_a_score_is_in_the_bin_between_its_edges_in_the_block_of_its_answer(
    *, score: float, known: bool, positive: bool
) -> None:
    block, place = divmod(cell(score, known=known, positive=positive), SCORE_BINS)
    assert block == (POSITIVE if (positive if known else score >= 0.5) else NEGATIVE)
    assert place == sum(edge <= score for edge in SCORE_EDGES.tolist())
    assert cell(score, ScoreOf.PREDICTED, known=True, positive=positive) == CHOSEN * SCORE_BINS + place


def test_a_score_of_nothing_or_of_an_unknown_answer_is_in_no_cell() -> None:
    assert cell(0.3, ScoreOf.NOTHING) == cell(math.nan) == cell(0.3, ScoreOf.PREDICTED, known=False) == -1


@given(error=st.floats(allow_nan=False))
def test_an_error_is_in_the_quarter_octave_of_its_size(error: float) -> None:
    size = abs(error)
    place = int(outcomes.error_cells(np.array([error]))[0])
    if size < 2.0**-40:
        assert place == 0
    elif size >= 2.0**40:
        assert place == outcomes.ERROR_CELLS - 1
    else:
        assert 2.0 ** ((place - 161) / 4) * (1 - 1e-15) <= size < 2.0 ** ((place - 160) / 4) * (1 + 1e-15)


@given(delay_ms=st.integers(0, 2**62))
def test_a_delay_is_in_its_quarter_octave(delay_ms: int) -> None:
    place = int(outcomes.delay_cells(np.array([delay_ms]))[0])
    assert 0 <= place < outcomes.DELAY_CELLS
    assert place == 0 or outcomes.DELAY_EDGES_MS[place - 1] <= delay_ms
    assert place == outcomes.DELAY_CELLS - 1 or delay_ms < outcomes.DELAY_EDGES_MS[place]


def test_delays_are_told_apart_from_a_sixteenth_of_a_second_to_a_year() -> None:
    assert outcomes.DELAY_EDGES_MS[[0, 1, 16, -1]].tolist() == [63, 75, 1000, 2**25 * 1000]


def test_the_positive_label_is_one_or_true_unless_it_is_named() -> None:
    assert outcomes.positive_labels(ModelSettings()) == ("1", "true")
    assert outcomes.positive_labels(ModelSettings(positive_label="approve")) == ("approve",)
