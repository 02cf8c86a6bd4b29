"""Results as a page: tables in Markdown, charts beside it. Pure: results in, text out."""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from stream.cli.evaluate.chart import Line, line_chart
from stream.cli.evaluate.measure import Check, Result
from stream.cli.evaluate.scenario import Chapter
from stream.cli.evaluate.score import Figures

CHAPTERS: Final[dict[Chapter, tuple[str, str]]] = {
    "false_alarms": (
        "False alarms",
        (
            "Nothing changes. *Allowed* is what the budget permits in so many windows; *limit* is the largest "
            "number that the alarms seen still leave possible with 95 % confidence, and must not exceed it. "
            "Notices are detections of ADWIN and of Page-Hinkley, which are told as `info` and may cost as much "
            "once more (a count may exceed it by three of its standard deviations)."
        ),
    ),
    "delays": (
        "Delays",
        (
            "Windows from the change to the alarm at one false alarm in a million windows. The promise for the "
            "median is 1.25 · ln A/(n · D) + 2, where D is how much an event of the new law tells: its "
            "Kullback-Leibler divergence from the reference, without what lies within the tolerance."
        ),
    ),
    "equal": (
        "Against ADWIN at equal false alarms",
        (
            "River's ADWIN sees every value; its δ is the largest whose measured false alarms are no more than "
            "ours. Both are then asked for the same changes, tolerance 0."
        ),
    ),
    "after": (
        "After the alarm",
        ("One drift is one episode, with a type, an end, and an interval in which it began."),
    ),
    "beside": (
        "Beside others",
        (
            "Recall, delay and false alarms belong together: who always alarms has perfect recall and no delay. "
            "River's detectors run with their published defaults on every value of one signal; our own ADWIN and "
            "Page-Hinkley rest while an alert is open."
        ),
    ),
}
_BUDGET, _NOTICES, _MEDIAN = "false alarms, upper 95 % limit", "notices of ADWIN and Page-Hinkley", "median delay"
_HOLDS: Final = {True: "holds", False: "**fails**"}


def page(results: Sequence[Result], command: str, folder: str) -> str:
    """All chapters that have results. `command` is what made them, `folder` where the charts are."""
    rows = [result for result in results if not result.scenario.missing]
    failing = [f"{one.scenario.title} ({_verdict(one.checks)})" for one in rows if not one.holds]
    missing = [result for result in results if result.scenario.missing]
    lines = [
        "# Detection",
        "",
        f"Measured by `{command}`; the same seed gives the same page.",
        f"Of {len(rows)} rows {len(rows) - len(failing)} hold, {len(failing)} fail; {len(missing)} are not measured.",
    ]
    if failing:
        lines += ["", "Failing:", "", *(f"- {title}" for title in failing)]
    if missing:
        lines += ["", "Not measured:", "", *(f"- {one.scenario.title}: {one.scenario.missing}" for one in missing)]
    for chapter, (title, words) in CHAPTERS.items():
        own = [result for result in rows if result.scenario.chapter == chapter]
        if own:
            lines += ["", f"## {title}", "", words, "", *_chapter(chapter, own, folder)]
    return "\n".join([*lines, ""])


def charts(results: Sequence[Result]) -> Iterator[tuple[str, str]]:
    """Name and SVG of every chart."""
    null = [one for one in results if one.scenario.chapter == "false_alarms" and one.windows]
    if null:
        yield "false_alarms", _budget_chart(null)
    for tolerance in sorted({_tolerance(one) for one in results if one.scenario.chapter == "delays"}):
        own = [one for one in results if one.scenario.chapter == "delays" and _tolerance(one) == tolerance]
        yield f"delays_{tolerance}", _delay_chart(own, tolerance)
    for one in results:
        if one.scenario.chapter == "beside" and one.figures and one.figures[0].changes:
            yield one.scenario.name, _found_chart(one)


def _chapter(chapter: Chapter, results: Sequence[Result], folder: str) -> Iterable[str]:
    if chapter == "false_alarms":
        return [f"![false alarms against the budget]({folder}/false_alarms.svg)", "", *_null_table(results)]
    if chapter == "delays":
        shown = [f"![delays, tolerance {t}]({folder}/delays_{t}.svg)" for t in sorted({_tolerance(r) for r in results})]
        return [*shown, "", *_delay_table(results)]
    if chapter == "beside":
        return [line for result in results for line in _beside(result, folder)]
    return _check_table(results)


def _null_table(results: Sequence[Result]) -> Iterator[str]:
    yield "| stream | n | windows | A | allowed | alarms | limit | notices | |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for one in results:
        limit = next((check.measured for check in one.checks if check.what == _BUDGET), math.nan)
        a = one.windows / one.allowed if one.allowed else math.nan
        numbers = (one.scenario.window, one.windows, a, one.allowed, one.quiet_alarms, limit, sum(one.notices.values()))
        yield _row(one.scenario.title, *map(_number, numbers), _verdict(one.checks))


def _delay_table(results: Sequence[Result]) -> Iterator[str]:
    yield "| change | n | tolerance | median | 90 % | promise | median rows | recall | |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for one in results:
        own, n = one.figures[0], one.scenario.window
        promise = next((check.limit for check in one.checks if check.what.startswith(_MEDIAN)), math.nan)
        numbers = (own.delay() / n, own.delay(0.9) / n, promise, own.delay(), own.recall)
        yield _row(one.scenario.title, str(n), _tolerance(one), *map(_number, numbers), _verdict(one.checks))


def _check_table(results: Sequence[Result]) -> Iterator[str]:
    yield "| scenario | n | what | measured | expected | |"
    yield "|---|---|---|---|---|---|"
    for one in results:
        for check in one.checks:
            expected = "" if math.isnan(check.limit) else _number(check.limit)
            verdict = "" if math.isnan(check.limit) else _HOLDS[check.holds]
            yield _row(
                one.scenario.title, str(one.scenario.window), check.what, _number(check.measured), expected, verdict
            )


def _beside(result: Result, folder: str) -> Iterator[str]:
    scenario = result.scenario
    period_rows = result.period_windows * scenario.window
    yield f"### {scenario.title}"
    yield ""
    yield f"`{scenario.stream}`, {scenario.window} rows per window of {scenario.window_size}."
    yield ""
    if result.figures[0].changes:
        yield f"![{scenario.title}]({folder}/{scenario.name}.svg)"
        yield ""
    yield "| detector | recall | median delay, rows | windows | seconds | false alarms per period | runs |"
    yield "|---|---|---|---|---|---|---|"
    for one in result.figures:
        delay = one.delay()
        windows = delay / scenario.window
        numbers = (one.recall, delay, windows, windows * result.window_ms / 1_000, one.per_period(period_rows))
        yield _row(one.detector, *map(_number, numbers), str(one.runs))
    yield ""
    if result.checks:
        yield f"Expected: {'; '.join(map(_told, result.checks))}."
        yield ""


def _budget_chart(results: Sequence[Result]) -> str:
    """Alarms as a share of what is allowed at the end, while windows go by."""
    lines = [Line("allowed", [(0.0, 0.0), (100.0, 1.0)], dashed=True)]
    worst = sorted(results, key=lambda one: one.quiet_alarms / max(one.allowed, 1e-9), reverse=True)
    for one in worst[:7]:
        steps = [(100 * at / one.windows, number / one.allowed) for number, at in enumerate(one.quiet_at, 1)]
        lines.append(Line(one.scenario.title[:28], [(0.0, 0.0), *steps, (100.0, len(steps) / one.allowed)]))
    return line_chart(
        "False alarms against the budget: the seven worst streams", "% of the windows", "share of the allowed", lines
    )


def _delay_chart(results: Sequence[Result], tolerance: str) -> str:
    """Measured medians beside what is promised."""
    ranked = sorted(results, key=_promise)
    return line_chart(
        f"Median delay and promise, tolerance {tolerance}",
        "rows of the table, by promise",
        "log10 of windows",
        [
            Line("promise", [(i, _log(_promise(one))) for i, one in enumerate(ranked, 1)], dashed=True),
            Line("measured", [(i, _log(_windows(one))) for i, one in enumerate(ranked, 1)]),
        ],
    )


def _promise(result: Result) -> float:
    return next((check.limit for check in result.checks if check.what.startswith(_MEDIAN)), 1.0)


def _windows(result: Result) -> float:
    """Median delay of the product."""
    return result.figures[0].delay() / result.scenario.window


def _log(value: float) -> float:
    return math.log10(value) if math.isfinite(value) and value > 0 else 0.0


def _found_chart(result: Result) -> str:
    """Share of the changes found as windows go by."""
    n = result.scenario.window
    last = max((max(one.delays, default=0) for one in result.figures), default=n) / n
    lines = [Line(one.detector, _found(one, n, last)) for one in result.figures]
    return line_chart(result.scenario.title, "windows since the change", "share of the changes found", lines)


def _found(figures: Figures, n: int, last: float) -> list[tuple[float, float]]:
    steps = [(delay / n, (rank + 1) / figures.changes) for rank, delay in enumerate(sorted(figures.delays))]
    return [(0.0, 0.0), *steps, (last, figures.recall)]


def _tolerance(result: Result) -> str:
    return f"{result.scenario.config.get('budget', {}).get('tolerance', 0.02):g}"


def _verdict(checks: Sequence[Check]) -> str:
    failing = [_told(check) for check in checks if not check.holds]
    return "; ".join(failing) if failing else "holds"


def _told(check: Check) -> str:
    return f"{check.what} {_number(check.measured)} for {_number(check.limit)} {_HOLDS[check.holds]}"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _number(value: float) -> str:
    if math.isnan(value):
        return "-"
    if math.isinf(value):
        return "never" if value > 0 else "for ever ahead"
    if value == int(value):
        return f"{int(value):,}"
    return f"{value:,.1f}" if abs(value) >= 10 else f"{value:.3g}"  # noqa: PLR2004 - three digits are enough
