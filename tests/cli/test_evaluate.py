"""`drift evaluate`: labelled streams in; recall, delay and false alarms out, for the product and those beside it."""

import math
from pathlib import Path
from xml.etree import ElementTree as ET

import msgspec
import numpy as np
import pytest
from doorway import Drift
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2
from worlds import START_MS, World

from stream.cli.evaluate import baselines, notation, scenario, score
from stream.cli.evaluate.chart import Line, line_chart
from stream.cli.evaluate.measure import Result, measure
from stream.cli.evaluate.notation import Block, Law, Piece
from stream.cli.evaluate.page import page
from stream.cli.evaluate.scenario import Expect, Label, Scenario

NORMAL = "normal(0,1)x20000"


def checked(**given: object) -> dict[str, tuple[float, bool]]:
    """What was expected of a scenario: measured, and whether it holds."""
    made = msgspec.convert({"title": "t", "reference": NORMAL, "shared": True, **given}, Scenario)
    return {check.what: (check.measured, check.holds) for check in measure(made, {}, seed=5).checks}


def test_a_stream_is_pieces_of_laws() -> None:
    text = "normal(0,1)x5000, normal(0.5,1)x250"
    assert notation.parse(text) == [
        Piece(Law("normal", (0.0, 1.0)), 5000),
        Piece(Law("normal", (0.5, 1.0)), 250),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "at least one piece"),
        ("normal(0,1)", "is not a piece"),
        ("normal(0,1)x50; normal(1,1)x50", "is not a piece"),
        ("cauchy(0,1)x50", "'cauchy' is no law"),
        ("normal(a,1)x50", "parameters are numbers"),
        ("normal(0)x50", "normal"),
        ("normal(0,1,2)x50", "normal"),
        ("normal(0,-1)x50", "normal"),
        ("shares()x50", "shares"),
    ],
)
def test_what_is_wrong_with_a_stream_is_said(text: str, said: str) -> None:
    with pytest.raises(ValueError, match="(?s)" + said):
        notation.parse(text)


@pytest.mark.parametrize(
    "law",
    [
        Law("normal", (0.0, 1.0)),
        Law("ar", (0.5,)),
        Law("sessions", (0.3,)),
        Law("bimodal", (0.9,)),
        Law("gaussians", (2.0, 0.5)),
        Law("ramp", (0.0, 0.0)),
        Law("daily", (0.0,)),
    ],
)
def test_laws_of_normal_size_have_mean_0_and_variance_1(law: Law) -> None:
    drawn = law.draw(np.random.default_rng(1), Block(20, 100, 50))
    assert drawn.shape[:3] == (20, 100, 50)
    assert abs(drawn.mean()) < 0.05
    assert abs(drawn.var() - 1) < 0.05


def test_categories_and_rates_have_the_shares_they_are_given() -> None:
    rng, block = np.random.default_rng(1), Block(10, 100, 100)
    shares = Law("shares", (0.5, 0.3, 0.2)).draw(rng, block)
    assert np.allclose(np.bincount(shares.astype(int).ravel()) / shares.size, [0.5, 0.3, 0.2], atol=0.01)
    assert len(np.unique(Law("categories", (50.0,)).draw(rng, block))) == 50
    rates = Law("rates", (0.2, 0.05)).draw(rng, block).mean(axis=2)
    assert abs(rates.mean() - 0.2) < 0.01
    assert rates.var() > 1.5 * 0.2 * 0.8 / 100


def test_a_week_has_days_and_a_weekend_and_every_repetition_begins_on_another_day() -> None:
    block = Block(8, 28, 400, window_ms=6 * 3_600_000)
    means = Law("weekly", (0.5, 2.0)).draw(np.random.default_rng(1), block).mean((2, 3))

    assert means[0, 1] - means[0, 3] == pytest.approx(1.0, abs=0.3)
    assert [int(row[:4].mean() > 1) for row in means] == [0, 0, 0, 0, 0, 1, 1, 0]
    assert means[0, 20:].mean() == pytest.approx(2.0, abs=0.1)


def test_a_version_without_a_reference_learns_one_and_then_finds_what_changes() -> None:
    found = checked(
        learned=True,
        window=600,
        window_size="15m",
        repetitions=2,
        windows_per_false_alarm=1_000,
        reference="weekly(.3,.25)x20000",
        stream="weekly(.3,.25)x86400, normal(2,1)x14400",
        expect={"recall": 1.0, "delay": 6},
    )

    assert found["recall"] == (1.0, True)
    assert found["median delay in windows"][1]


def test_changes_are_where_the_law_changes_and_a_return_is_known_as_one() -> None:
    stream = "normal(0,1)x100, normal(1,1)x50, normal(1,1)x50, normal(0,1)x100"
    made = Scenario("t", stream=stream, reference=NORMAL)
    assert scenario.labels(made) == [Label(100, back=False), Label(200, back=True)]
    assert scenario.labels(Scenario("t", stream=stream, changes=[7])) == [Label(7, back=False)]


def test_the_first_alarm_after_a_change_is_its_own_and_every_other_is_false() -> None:
    labels = [Label(100, back=False), Label(200, back=True), Label(300, back=False)]
    found = score.judge("x", [[50, 110, 150, 220, 250, 301], [400]], labels, 400)
    assert (found.changes, found.found, sorted(found.delays)) == (4, 3, [1, 10, 100])
    assert found.false_alarms == 3  # 50; 150; 250: the one at 220 tells of the return
    assert found.recall == 0.75
    assert found.delay() == 10
    assert found.delay(1.0) == math.inf
    assert found.per_period(100) == 100 * 3 / 800


def test_who_always_alarms_has_perfect_recall_and_no_delay_and_is_told_apart_by_false_alarms() -> None:
    alarms = baselines.alarms(baselines.ALWAYS, np.zeros(1_000), 0.0, 50)
    found = score.judge("x", [alarms], [Label(500, back=False)], 1_000)
    assert (found.recall, found.delay(), found.false_alarms) == (1.0, 50.0, 19)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 60))
def test_a_poisson_limit_is_the_chi_square_one(count: int) -> None:
    assert score.poisson_limit(count) == pytest.approx(chi2.ppf(0.95, 2 * count + 2) / 2, rel=1e-6)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e6)), max_size=5), max_size=12))
def test_a_chart_is_well_formed_whatever_its_lines(lines: list[list[tuple[float, float]]]) -> None:
    text = line_chart("a < b & c", "x", "y", [Line("<&>", sorted(points)) for points in lines])
    root = ET.fromstring(text)  # noqa: S314 - our own text
    assert root.tag.endswith("svg")
    assert "nan" not in text


def test_what_the_project_promises_can_be_read_and_every_chapter_has_rows() -> None:
    every = scenario.built_in()
    assert {one.chapter for one in every} == {"false_alarms", "delays", "equal", "after", "beside"}
    assert len({one.name for one in every}) == len(every)
    assert all(one.missing or one.expect != Expect() for one in every)


def test_the_page_in_the_documents_shows_every_row() -> None:
    text = (Path(__file__).parents[2] / "docs" / "detection.md").read_text(encoding="utf-8")
    assert [one.title for one in scenario.built_in() if one.title not in text] == []


def test_a_row_that_fails_and_one_that_is_missing_are_shown() -> None:
    failing = measure(
        Scenario("hopeless", stream="normal(0,1)x500, normal(0.1,1)x500", repetitions=2, expect=Expect(recall=1.0)),
        {},
        seed=1,
    )
    text = page([failing, Result(Scenario("later", missing="not built"))], "drift evaluate", "detection")
    assert "- hopeless (recall 0 for 1 **fails**)" in text
    assert "**fails**" in text
    assert "- later: not built" in text


def test_false_alarms_are_within_the_budget() -> None:
    found = checked(stream="normal(0,1)x15000", windows_per_false_alarm=500, expect={"budget": True})
    assert all(holds for _, holds in found.values()), found


@pytest.mark.parametrize("tolerance", [0.0, 0.02])
def test_delays_keep_the_promise(tolerance: float) -> None:
    found = checked(
        chapter="delays",
        window=500,
        repetitions=10,
        stream="normal(0,1)x10000, normal(0.1,1)x30000",
        reference="normal(0,1)x1000000",
        windows_per_false_alarm=1e6,
        config={"budget": {"tolerance": tolerance}},
        expect={"delay": "promise"},
    )
    assert all(holds for _, holds in found.values()), found


def test_a_blip_is_no_alert() -> None:
    found = checked(stream="normal(0,1)x1000, normal(2,1)x50, normal(0,1)x1000", changes=[], expect={"silence": True})
    assert found == {"alarms": (0, True)}


@pytest.mark.parametrize("scale", [1e6, 1e-6])
def test_a_change_of_unit_changes_no_alarm(scale: float) -> None:
    found = checked(
        stream="normal(0,1)x500, normal(0.8,1)x1000",
        repetitions=4,
        scale=scale,
        expect={"unscaled": True, "recall": 1},
    )
    assert all(holds for _, holds in found.values()), found


def test_a_pulse_is_temporary_and_over_when_it_is_over() -> None:
    found = checked(
        window=500,
        repetitions=10,
        reference="normal(0,1)x50000",
        stream="normal(0,1)x25000, normal(0.5,1)x15000, normal(0,1)x50000",
        expect={"shape": "temporary", "returned": True},
    )
    assert all(holds for _, holds in found.values()), found


def test_a_flip_of_correlation_is_found_though_no_signal_moves() -> None:
    found = checked(
        window=500,
        repetitions=8,
        reference="gaussians(5,0.5)x50000",
        stream="gaussians(5,0.5)x5000, gaussians(5,0.3)x5000",
        expect={"recall": 1, "delay": 6},
    )
    assert all(holds for _, holds in found.values()), found


@pytest.mark.parametrize(
    ("before", "after"), [("bernoulli(0.2)", "bernoulli(0.6)"), ("shares(6,3,1)", "shares(2,3,5)")]
)
def test_rates_and_categories_are_evaluated_too(before: str, after: str) -> None:
    found = checked(
        reference=f"{before}x5000", stream=f"{before}x500, {after}x500", repetitions=3, expect={"recall": 1}
    )
    assert found == {"recall": (1, True)}


def written(folder: Path, text: str) -> Path:
    file = folder / "own.toml"
    file.write_text(text, encoding="utf-8")
    return file


OWN = """
title = "The mean moves"
repetitions = 4
reference = "normal(0,1)x5000"
baselines = ["ADWIN", "always alarm"]
expect.recall = 1

[[case]]
stream = "normal(0,1)x1000, normal(1,1)x1000"

[[case]]
stream = "normal(0,1)x1000, normal(0,4)x1000"
"""


def test_a_page_beside_its_charts_is_the_same_every_time(drift: Drift, tmp_path: Path) -> None:
    file = written(tmp_path, OWN)
    for folder, jobs in (("one", 1), ("two", 2)):
        done = drift("evaluate", file, "--seed", "3", "--out", folder, "--jobs", jobs)
        assert done.exit_code == 0, done.stderr
        assert "2 of 2 rows hold" in done.stdout
    one, two = ({p.name: p.read_text() for p in (tmp_path / name).rglob("*.*")} for name in ("one", "two"))
    assert one == two
    assert set(one) == {"detection.md", "own-1.svg", "own-2.svg", "figures.json"}
    assert "| detector | recall |" in one["detection.md"]
    assert "| always alarm | 1 | 50 | 1 | 60 |" in one["detection.md"]
    assert "F1" not in one["detection.md"]


def test_the_configuration_is_the_one_that_is_given(drift: Drift, tmp_path: Path) -> None:
    config = tmp_path / "drift.toml"
    config.write_text("[budget]\ntolerance = 0.5\n")
    done = drift("evaluate", written(tmp_path, OWN), "-c", config)
    assert done.exit_code == 0
    assert "| driftstream | 0 | never |" in done.stdout


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("title = 1", "Expected `str`"),
        ('title = "t"\nbogus = 1', "bogus"),
        ('title = "t"\nstream = "normal(0,1)x30"', "whole number of windows"),
        ('title = "t"\nstream = "categories(3)x50"', "mix categorical and numeric"),
        ('title = "t"\nstream = "normal(0,1)x50"\nbaselines = ["bogus"]', "bogus"),
        ('title = "t"\nstream = "normal(0,1)x50"\nconfig.budget.bogus = 1', "config.budget.bogus"),
        ("title =", "own.toml"),
    ],
)
def test_a_wrong_scenario_is_a_sentence_and_exit_code_2(drift: Drift, tmp_path: Path, text: str, said: str) -> None:
    done = drift("evaluate", written(tmp_path, text))
    assert done.exit_code == 2, done.stderr
    assert said in " ".join(done.stderr.replace("│", "").split())


def test_a_file_with_the_time_of_its_change_is_evaluated_too(drift: Drift, tmp_path: Path) -> None:
    world = World(seed=4, step_ms=600, drift_at=6_000, shift=1.5)
    (tmp_path / "log.jsonl").write_bytes(b"\n".join(world.records(9_000)))
    change = START_MS + 6_000 * 600
    file = written(
        tmp_path,
        f'title = "A log"\nrows = "log.jsonl"\nreference_rows = 4000\nchanges = [{change}]\n'
        'baselines = ["PageHinkley", "always alarm"]\nexpect.recall = 1\n',
    )
    done = drift("evaluate", file)
    assert done.exit_code == 0, done.stderr
    assert "Of 1 rows 1 hold" in done.stdout
    assert "| driftstream | 1 |" in done.stdout
