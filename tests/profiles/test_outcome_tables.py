"""What is normal for outcomes follows from their counts, and a window measures what its pairs say."""

import numpy as np
import pytest
from labelled import Labelled, Law, total
from msgspec.structs import replace

from stream.profiles import outcomes
from stream.profiles.outcome_tables import (
    COVERAGE,
    DELAY,
    ERROR,
    RESIDUAL,
    TABLE_BINS,
    UNIT,
    OutcomeTables,
    calibrated,
    compile_outcomes,
    measure,
    score_table,
)


@pytest.fixture(scope="module")
def tables() -> OutcomeTables:
    return compile_outcomes(total(Labelled().windows(100)), {})


def names(tables: OutcomeTables) -> list[tuple[str, str]]:
    return [(member.signal, member.measure) for member in tables.members]


def test_a_classification_is_watched_by_its_errors_residuals_delays_and_coverage(tables: OutcomeTables) -> None:
    ranges = [(RESIDUAL, f"range_{place}") for place in range(1, 5)]
    assert names(tables) == [
        (DELAY, "distribution"),
        (ERROR, "rate"),
        (COVERAGE, "rate"),
        (RESIDUAL, "mean"),
        (RESIDUAL, "spread"),
        *ranges,
    ]
    assert tables.segments == ["all", "country=AT", "country=DE"]


def test_a_regression_is_watched_by_the_rank_of_its_errors() -> None:
    found = compile_outcomes(total(Labelled(regression=True).windows(50)), {})
    assert names(found) == [(DELAY, "distribution"), (COVERAGE, "rate"), (ERROR, "mean")]
    own = measure(found, total(Labelled(regression=True).windows(50)))
    n, s, _ = own.means[0, 0]
    assert s * UNIT / n == pytest.approx(0.5, abs=1e-6)
    worse = measure(found, total(Labelled(regression=True, changes={0: Law(noise=2.0)}).windows(50)))
    assert worse.means[0, 0, 1] * UNIT / worse.means[0, 0, 0] > 0.6


def test_the_reference_itself_has_no_residual_in_any_segment_or_range(tables: OutcomeTables) -> None:
    own = measure(tables, total(Labelled().windows(100)))
    means = own.means[:, :, 1] * UNIT / own.means[:, :, 0]
    assert np.abs(means - 0.5).max() < 2e-4


def test_the_mean_of_residuals_is_exactly_what_the_counts_say(tables: OutcomeTables) -> None:
    window = Labelled(seed=7).window(0)
    row = window.segments.index("all")
    table, c = score_table(window.scores)[row], tables.calibration[0]
    e = table[:, 1].sum() - (table.sum(1) * c).sum()
    squares = (table[:, 1] * (1 - c) ** 2 + table[:, 0] * c**2).sum()
    n, s, q = measure(tables, window).means[0, 0]
    assert n == table.sum() == 300
    assert 2 * s * UNIT - n == pytest.approx(e, abs=1e-5)
    assert 4 * q * UNIT - 4 * s * UNIT + n == pytest.approx(squares, abs=1e-4)


def test_inputs_that_move_leave_residuals_where_they_are_and_a_changed_relation_does_not(
    tables: OutcomeTables,
) -> None:
    def mean(law: Law) -> float:
        own = measure(tables, total(Labelled(seed=3, changes={0: law}).windows(60)))
        return float(2 * own.means[0, 0, 1] * UNIT / own.means[0, 0, 0] - 1)

    assert abs(mean(Law(inputs=1.5))) < 0.02
    assert mean(Law(relation=-1.0)) < -0.1


def test_ranges_of_scores_are_quarters_that_cover_every_score(tables: OutcomeTables) -> None:
    own = measure(tables, total(Labelled().windows(100)))
    shares = own.ranges[0, :, 0] / own.ranges[0, :, 0].sum()
    assert own.ranges[0, :, 0].sum() == 30_000
    assert shares == pytest.approx([0.25] * 4, abs=0.04)
    assert (tables.ranges[0].low, tables.ranges[-1].high) == (0.0, 1.0)
    assert tables.ranges[0].high == tables.ranges[1].low
    assert tables.ranges[-1].name.endswith(", 1]")


def test_wrong_answers_by_range_are_the_wrong_answers(tables: OutcomeTables) -> None:
    window = Labelled(seed=9).window(4)
    assert measure(tables, window).ranges[:, :, 1].sum(1).tolist() == window.wrong.tolist()


def test_a_score_not_seen_before_is_believed_and_a_segment_leans_on_the_whole() -> None:
    counts = np.zeros((2, TABLE_BINS, 2), np.int64)
    counts[0, 40] = [10, 30]
    found = calibrated(counts)
    assert found[0, 40] == pytest.approx(30.7 / 41, abs=0.01)
    assert found[1, 40] == found[0, 40]
    assert found[0, 63] > 0.99
    assert found[0, 0] < 0.01


def test_segments_that_are_not_known_are_left_out_and_missing_ones_are_empty(tables: OutcomeTables) -> None:
    nothing = measure(tables, outcomes.empty("credit", "3", 0))
    assert not nothing.pairs.any()
    assert nothing.means.shape == (3, 6, 3)
    whole = Labelled().window(0)
    only = compile_outcomes(outcomes.merge([outcomes.empty("credit", "3", 0), whole]), {})
    assert measure(only, whole).pairs.tolist() == [300, *whole.pairs[1:].tolist()]


def test_one_delay_for_all_still_has_bins_below_and_above() -> None:
    window = Labelled().window(0)
    same = np.zeros_like(window.delays)
    same[:, 40] = window.pairs
    found = compile_outcomes(replace(window, delays=same), {})
    assert (found.delays[39], found.delays[40], found.delays[41]) == (0, 1, 2)
    assert found.delay_p[0, 1] > 0.98
    assert found.delay_p.sum(1) == pytest.approx(1)
