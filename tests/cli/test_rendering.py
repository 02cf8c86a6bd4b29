"""Alerts on a terminal, to the letter."""

import copy
import json
from io import StringIO
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from rich.text import Text

from stream.cli import rendering
from stream.wire.outbound import CloudEvent

WIRE = Path(__file__).parents[1] / "wire"
EVENT: dict[str, Any] = json.loads((WIRE / "contract_alert.json").read_text())
DIFFERENCES = [json.loads(line) for line in (WIRE / "contract_differences.jsonl").read_text().splitlines()]


def changed(event_name: str, **data: Any) -> dict[str, Any]:
    event = copy.deepcopy(EVENT)
    event["type"] = f"io.driftstream.alert.{event_name}.v1"
    event["data"].update(data)
    return event


RESOLVED = changed(
    "resolved",
    **DIFFERENCES[0],
    annotations={
        "summary": "credit/3 country=DE: data drift resolved after 1 h 4 min, income back at the reference",
        "description": "The inputs changed at about 02:03 and returned.",
        "action": "Nothing to do.",
    },
)
OUTLIER = changed(
    "notice",
    **DIFFERENCES[1],
    annotations={"summary": "credit/3: outlier p-7f3a, score 15 over 12, mostly income"},
)


def coloured(text: Text) -> str:
    console = Console(
        file=StringIO(), force_terminal=True, color_system="standard", width=200, legacy_windows=False, no_color=False
    )
    console.print(text)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def test_an_alert_for_reading() -> None:
    assert (
        rendering.pretty(EVENT).plain
        == """\
▲ WARNING firing  data_drift  2026-11-21 02:06:00 UTC
  credit/3 country=DE: income moved up, mean 51.2k to 61.2k (1 of 42 signals)
  The inputs changed at about 02:03 and stayed changed.
  → Check the producer of income before retraining.
  signal          measure       detector   statistic    before → after      PSI
  feature:income  distribution  histogram  9.84 ≥ 9.16  mean 51.2k → 61.2k  0.31
  since   02:03 (95 %: 02:02 to 02:04), sudden
  window  02:05 to 02:06, 5k rows against 50k in the reference, 3 late
  records predictions[3] 913274 to 918273
  id      ffc82447919be0d928b324feb9c24053
  runbook https://example.org/runbooks/data_drift
  more    https://drift.example.org/alerts/ffc82447919be0d928b324feb9c24053"""
    )


def test_a_resolved_alert_for_reading() -> None:
    assert (
        rendering.pretty(RESOLVED).plain
        == """\
✓ WARNING resolved  data_drift  2026-11-21 03:10:00 UTC
  credit/3 country=DE: data drift resolved after 1 h 4 min, income back at the reference
  The inputs changed at about 02:03 and returned.
  → Nothing to do.
  signal          measure       detector   statistic    before → after      PSI
  feature:income  distribution  histogram  9.84 ≥ 9.16  mean 51.2k → 61.2k  0.31
  since   02:03 (95 %: 02:02 to 02:04), temporary
  open    2026-11-21 02:06:00 to 2026-11-21 03:10:00
  window  02:05 to 02:06, 5k rows against 50k in the reference, 3 late
  records predictions[3] 913274 to 918273
  id      ffc82447919be0d928b324feb9c24053"""
    )


def test_an_outlier_for_reading() -> None:
    assert (
        rendering.pretty(OUTLIER).plain
        == """\
• INFO notice  outlier  2026-11-21 02:05:43.715 UTC
  credit/3: outlier p-7f3a, score 15 over 12, mostly income
  records predictions[3] at 917001
  id      58160f00de6c4a28fccd23ecd20ea530"""
    )


def test_alerts_in_a_list() -> None:
    assert [rendering.line(event).plain.split("  credit/3") for event in (EVENT, RESOLVED, OUTLIER)] == [
        [
            "2026-11-21 02:06:00  WARNING   ▲ firing    data_drift      ",
            " country=DE: income moved up, mean 51.2k to 61.2k (1 of 42 signals)  ffc82447",
        ],
        [
            "2026-11-21 03:10:00  WARNING   ✓ resolved  data_drift      ",
            " country=DE: data drift resolved after 1 h 4 min, income back at the reference  ffc82447",
        ],
        [
            "2026-11-21 02:05:43  INFO      • notice    outlier         ",
            ": outlier p-7f3a, score 15 over 12, mostly income  58160f00",
        ],
    ]


def test_urgency_has_a_colour() -> None:
    shown = {
        severity: coloured(rendering.line(changed("firing", severity=severity)))
        for severity in ("info", "warning", "critical")
    }
    assert "\x1b[36mINFO" in shown["info"]
    assert "\x1b[33mWARNING" in shown["warning"]
    assert "\x1b[37;41mCRITICAL" in shown["critical"]
    assert "\x1b[32mWARNING" in coloured(rendering.line(RESOLVED))
    assert "\x1b[1;33m▲ WARNING firing\x1b[0m" in coloured(rendering.pretty(EVENT))


def test_a_struct_reads_like_its_json() -> None:
    event = msgspec.convert(EVENT, CloudEvent)
    assert rendering.pretty(event) == rendering.pretty(EVENT)
    assert rendering.line(event) == rendering.line(EVENT)


def test_many_signals_are_cut_and_counted() -> None:
    [entry] = EVENT["data"]["signals"]
    signals = [{**entry, "signal": f"feature:f{number}"} for number in range(20)]
    shown = rendering.pretty(changed("updated", signals=signals, signals_total=80)).plain
    assert "feature:f9 " in shown
    assert "feature:f10" not in shown
    assert "  and 70 more\n" in shown


def test_many_partitions_are_cut_and_counted() -> None:
    [part] = EVENT["data"]["evidence_offsets"]
    parts = [{**part, "partition": number} for number in range(12)]
    assert (
        "predictions[1] 913274 to 918273, 10 more partitions"
        in rendering.pretty(changed("firing", evidence_offsets=parts)).plain
    )


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        ({"rate": 0.02}, {"rate": 0.41}, "rate 2 % → 41 %"),
        ({"p50": 1.0}, {"p50": 2.0}, "p50 1 → 2"),
        ({"top": [["eu", 0.6]]}, {"top": [["us", 0.5]]}, "eu 60 % → us 50 %"),
        ({}, {"mean": 1.0}, "histogram  9.84 ≥ 9.16                  0.31"),
    ],
)
def test_before_and_after_show_what_applies(before: dict[str, Any], after: dict[str, Any], text: str) -> None:
    [entry] = EVENT["data"]["signals"]
    assert text in rendering.pretty(changed("firing", signals=[{**entry, "before": before, "after": after}])).plain


def test_foreign_text_cannot_move_the_cursor_or_forge_a_line() -> None:
    event = changed("firing", annotations={"summary": "\x1b[2Jgone\r\n▲ CRITICAL \u202eforged", "action": "\x07"})
    for text in (rendering.line(event), rendering.pretty(event)):
        assert not set("\x1b\r\x07\u202e") & set(text.plain)
    assert "\n" not in rendering.line(event).plain
    assert "[red]" in rendering.line(changed("firing", annotations={"summary": "[red]x[/red]"})).plain


@pytest.mark.parametrize("event", [{}, {"data": None}, {"type": "x", "data": {"kind": "new_kind"}}])
def test_an_event_of_another_release_is_shown_as_far_as_it_goes(event: dict[str, Any]) -> None:
    rendering.line(event)
    rendering.pretty(event)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**400), 10**400) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value of a JSON document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else []
    return [path, *(place for key, inner in items for place in places(inner, (*path, key)))]


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(places(EVENT)[1:]), JSON)
def test_whatever_stands_in_a_field_it_is_shown_and_nothing_is_raised(place: tuple[Any, ...], value: Any) -> None:
    event = copy.deepcopy(EVENT)
    target = event
    for key in place[:-1]:
        target = target[key]
    target[place[-1]] = value
    assert "\n" not in rendering.line(event).plain
    assert rendering.pretty(event).plain.count("\n") <= 14
