"""Halves of pairs: the same key for both, nothing lost when blocks are merged and cut."""

import math
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from makings import a_reference
from msgspec.structs import replace

from stream.signals import extract, halves
from stream.signals.halves import Source, Times
from stream.signals.outcomes import ModelSettings
from stream.wire import codec, inbound
from stream.wire.inbound import Events, Limits
from stream.wire.internal import HALVES, Halves, ScoreOf
from stream.wire.record import Batch

NOW_MS = 1_795_219_200_000
SOURCE = Source("credit", "predictions", 3)


def events(*answers: dict[str, Any], tags: list[dict[str, Any]] | None = None) -> Events:
    """One event per prediction."""
    given = tags or [{}] * len(answers)
    values: list[bytes | None] = [
        orjson.dumps({"prediction_id": f"p-{row}", "model_id": "credit", "prediction": answer, "tags": own})
        for row, (answer, own) in enumerate(zip(answers, given, strict=True))
    ]
    n = len(values)
    return inbound.decode(
        Batch("predictions", 3, list(range(n)), [NOW_MS] * n, [None] * n, values, [None] * n), Limits(), 0
    )


def block(
    *answers: dict[str, Any],
    tags: list[dict[str, Any]] | None = None,
    positive: str | None = None,
    layout: extract.Layout | None = None,
) -> Halves:
    rows = np.arange(len(answers), dtype=np.int64)
    times, given = Times(rows, rows + NOW_MS, rows), events(*answers, tags=tags)
    said = halves.answers_of(given, ModelSettings(positive_label=positive))
    return halves.of_predictions(SOURCE, "3", given, said, times, layout)


def said(one: Halves) -> list[tuple[Any, ...]]:
    """What a block says row by row, whatever its lists are."""
    return [
        (
            offset,
            key,
            is_label,
            one.times_ms[row],
            one.own_times_ms[row],
            one.versions[one.version[row]] if one.version[row] >= 0 else None,
            one.classes[one.label[row]] if one.label[row] >= 0 else None,
            None if math.isnan(one.scores[row]) else one.scores[row],
            one.score_of[row],
            None if math.isnan(one.values[row]) else one.values[row],
            tuple(one.segments[one.segment[row]]) if one.segment[row] >= 0 else None,
        )
        for row, (offset, key, is_label) in enumerate(
            zip(one.offsets.tolist(), one.keys.tolist(), one.labels.tolist(), strict=True)
        )
    ]


@given(st.text(min_size=1, max_size=5), st.lists(st.text(max_size=8), max_size=5))
def test_a_key_is_the_hash_of_the_compact_array_of_model_and_prediction_id(model_id: str, ids: list[str]) -> None:
    expected = [codec.hash64(orjson.dumps([model_id, own])) for own in ids]
    assert halves.keys(model_id, ids).view(np.uint64).tolist() == expected


@pytest.mark.parametrize(
    ("answer", "positive", "score", "whose"),
    [
        ({"label": "1", "score": 0.25}, None, 0.25, ScoreOf.POSITIVE),
        ({"label": "0", "score": 0.25, "scores": {"0": 0.1, "1": 0.9}}, None, 0.25, ScoreOf.POSITIVE),
        ({"label": "0", "scores": {"0": 0.75, "1": 0.25}}, None, 0.25, ScoreOf.POSITIVE),
        ({"label": False, "scores": {"false": 0.75, "true": 0.25}}, None, 0.25, ScoreOf.POSITIVE),
        ({"label": "deny", "scores": {"approve": 0.25, "deny": 0.75}}, "approve", 0.25, ScoreOf.POSITIVE),
        ({"label": "deny", "scores": {"approve": 0.25, "deny": 0.75}}, None, 0.75, ScoreOf.PREDICTED),
        ({"label": 2, "scores": {"0": 0.1, "1": 0.2, "2": 0.7}}, None, 0.7, ScoreOf.PREDICTED),
        ({"label": 2, "scores": {"0": 0.1, "1": 0.2, "2": 0.7}}, "1", 0.2, ScoreOf.POSITIVE),
        ({"label": 2, "score": 1.5, "scores": {"2": 1.5}}, None, None, ScoreOf.NOTHING),
        ({"label": "0", "scores": {"1": None, "0": 0.5}}, None, 0.5, ScoreOf.PREDICTED),
        ({"label": "1", "scores": 7}, None, None, ScoreOf.NOTHING),
        ({"value": 3.5}, None, None, ScoreOf.NOTHING),
    ],
)
def test_a_score_is_that_of_the_positive_label_where_it_is_known_else_of_the_predicted_one(
    answer: dict[str, Any], positive: str | None, score: float | None, whose: ScoreOf
) -> None:
    one = block(answer, positive=positive)
    assert said(one)[0][7:9] == (score, whose)


def test_cells_of_scores_tell_whose_they_are_and_what_was_predicted() -> None:
    given: list[dict[str, Any]] = [
        {"label": "1", "score": 0.5},
        {"label": "0", "score": 0.5},
        {"score": 0.5},
        {"label": "b", "scores": {"a": 0.1, "b": 0.5, "c": 0.4}},
        {"value": 1.0},
    ]
    cells = halves.cells_of(halves.answers_of(events(*given), ModelSettings()), ModelSettings())
    # One half is the lower edge of the 33rd of 64 bins; blocks: negative, positive, chosen.
    assert cells.tolist() == [64 + 32, 32, 64 + 32, 128 + 32, -1]


def test_what_a_half_does_not_know_is_minus_one_or_nan() -> None:
    one = block({"label": True}, {"label": 1.5}, {"value": 2.0}, {"label": None})
    assert [row[6] for row in said(one)] == ["true", None, None, None]
    assert [row[9] for row in said(one)] == [None, None, 2.0, None]
    assert one.segments == [[]]


def test_labels_that_are_too_long_to_send_stay_as_equal_and_as_different_as_they_were() -> None:
    long = "é" * 200
    one = block({"label": long}, {"label": long}, {"label": long + "x"}, {"label": "é" * 64})
    assert one.label.tolist() == [0, 0, 1, 2]
    assert all(len(name.encode()) <= 128 for name in one.classes)
    assert one.classes[2] == "é" * 64


def test_segments_are_those_of_the_reference() -> None:
    layout = extract.compile_layout(a_reference({}, segments={"country": ["AT", "DE"], "plan": ["a"]}))
    tags = [{"country": "DE", "plan": "a"}, {"country": "FR"}, {"country": "DE", "plan": "a"}, {"country": "AT"}]
    one = block(*[{"label": "1"}] * 4, tags=tags, layout=layout)
    assert [row[10] for row in said(one)] == [
        ("country=DE", "plan=a"),
        ("country=other", "plan=other"),
        ("country=DE", "plan=a"),
        ("country=AT", "plan=other"),
    ]


def test_segments_of_many_keys_with_many_values_are_those_of_the_reference() -> None:
    values = [f"{value:03d}" for value in range(150)]
    layout = extract.compile_layout(a_reference({}, segments={"a": values, "b": values, "c": values}))
    tags = [{"a": values[row % 150], "b": values[row // 2 % 150], "c": values[row % 7]} for row in range(600)]
    one = block(*[{"label": "1"}] * 600, tags=tags, layout=layout)
    assert [row[10] for row in said(one)] == [(f"a={tag['a']}", f"b={tag['b']}", f"c={tag['c']}") for tag in tags]
    assert one.segments == sorted(one.segments)


ANSWERS = st.fixed_dictionaries(
    {},
    optional={"label": st.sampled_from(["a", "b", "c", None]), "score": st.floats(0, 1), "value": st.floats(-9, 9)},
)


@settings(max_examples=60, deadline=None)
@given(
    answers=st.lists(ANSWERS, min_size=1, max_size=20),
    cuts=st.lists(st.integers(0, 20), max_size=3),
    partitions=st.integers(1, 5),
    bytes_max=st.sampled_from([1, 400, 10**6]),
)
def test_blocks_can_be_merged_and_cut_at_will(
    answers: list[dict[str, Any]], cuts: list[int], partitions: int, bytes_max: int
) -> None:
    whole = block(*answers)
    rows = np.arange(len(answers))
    parts = [halves._picked(whole, part) for part in np.split(rows, sorted(cuts))]
    assert said(halves.merge(parts[::-1])) == said(whole)
    pieces = halves.routed(whole, partitions, bytes_max)
    for target, piece in pieces:
        assert {key % partitions for key in piece.keys.view(np.uint64).tolist()} == {target}
        assert halves.size_of(piece) <= bytes_max or len(piece.keys) == 1
        assert len(codec.encode(piece, HALVES)) <= halves.size_of(piece) + 1_000
        assert codec.decode(codec.encode(piece, HALVES), Halves) is not None
    assert said(halves.merge([piece for _, piece in pieces])) == said(whole)


def test_halves_of_several_sources_do_not_merge() -> None:
    one = block({"label": "1"})
    for other in ([], [one, replace(one, partition=4)], [one, replace(one, model_id="other")]):
        with pytest.raises(ValueError, match="only halves of one model"):
            halves.merge(other)


def test_sampling_keeps_keys_below_a_share_of_all() -> None:
    one = block(*[{"label": "1"}] * 400)
    kept = halves.sampled(one, 0.25)
    assert 60 < len(kept.keys) < 140
    assert set(kept.keys.view(np.uint64).tolist()) == {key for key in one.keys.view(np.uint64).tolist() if key < 2**62}
    assert halves.sampled(one, 1.0) is one
