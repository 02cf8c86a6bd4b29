"""What an alert says to the person on call: summary (what), description (since when, what else), action (what next).

Pure functions of the alert. Numbers are short (51.2k, 41 %) and always precise enough to show a difference.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from math import floor, log, log10
from typing import Final, NamedTuple, TypeAlias

from stream.alerts.policy import Impact
from stream.wire.outbound import (
    Alert,
    BurstDetails,
    ChallengerDetails,
    ConceptDetails,
    Damage,
    Details,
    DriftDetails,
    EventName,
    Kind,
    OutlierDetails,
    PerformanceDetails,
    QualityDetails,
    RetrainDetails,
    SignalEntry,
    SilenceDetails,
)

_UNITS: Final = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_NAMES: Final = {
    "row:distance": "row distance",
    "row:quality": "rows with invalid values",
    "row:outlier": "unusual rows",
    "volume:predictions": "number of predictions",
    "volume:feedback": "number of labels",
    "outcome:error": "error",
    "outcome:residual": "residual",
    "outcome:delay": "label delay",
    "outcome:coverage": "share of labelled predictions",
    "outcome:gain": "gain of the challenger",
}
_CHECKS: Final = {
    "outcome:delay": "labels later than the usual median",
    "outcome:coverage": "share of labelled predictions",
}
"""What is checked of labels."""
_DETECTORS: Final = {"adwin": "ADWIN", "page_hinkley": "Page-Hinkley", "histogram": "histogram", "mean": "mean"}
_WHAT: Final[dict[Kind, str]] = {
    "data_drift": "The inputs",
    "prediction_drift": "The predictions",
    "concept_drift": "The relation between predictions and labels",
    "performance": "The performance",
    "data_quality": "The quality of the records",
    "outlier": "The rate of unusual rows",
}
_CHANGED: Final = {
    "sudden": "changed{at} and stayed changed",
    "gradual": "began to move{at} and moved on gradually",
    "temporary": "changed{at}, but only for a time",
    "recurring": "changed{at}, to a state seen before",
}
_ENDED: Final = {
    "returned": "{names} back at the reference",
    "new_reference": "a new reference is in force",
    "retired": "the version has gone silent",
    "operator": "closed by an operator",
}
_LISTED: Final = 3
_SPAN_UNITS: Final = 2
_PLAIN_FROM, _PLAIN_BELOW = 1e-4, 1e15
"""Sizes outside are written with an exponent: they need too many zeros, or have no unit."""
_AFTER_THE_END: Final = {
    "new_reference": "Nothing to do: windows are compared with the new reference from now on.",
    "retired": "Nothing to do if the version was withdrawn; else check that its predictions arrive.",
}
_MAY_NOT_MATURE: Final = "the reference may not take up what was learned since, because the data moved"
_WHY_NOT_MATURE: Final = "What came since it was learned differs from it by more than the tolerance: it stays in force."
_WHY_UNCONFIRMED: Final = (
    "A detector without a false-alarm guarantee fired; the evidence of the group does not confirm it."
)
_Condition: TypeAlias = (
    DriftDetails | QualityDetails | BurstDetails | SilenceDetails | PerformanceDetails | ConceptDetails
)


def number(value: float, digits: int = 3) -> str:
    """A number with about three significant digits and a unit: 51200.5 is "51.2k", 0.01234 is "0.0123", 812.0 "812"."""
    if value == 0:
        return "0"
    rounded = float(f"{value:.{digits}g}")
    size = abs(rounded)
    if not _PLAIN_FROM <= size < _PLAIN_BELOW:
        return f"{value:.{digits - 1}e}".replace("e+", "e").replace("e-0", "e-").replace("e0", "e")
    for factor, unit in _UNITS:
        if size >= factor:
            return _plain(rounded / factor, digits) + unit
    return _plain(rounded, digits)


def percent(share: float, digits: int = 2) -> str:
    """A share: 0.41 is "41 %", 0.0206 "2.1 %", 0.0003 "0.03 %"."""
    return f"{_plain(float(f'{100 * share:.{digits}g}'), digits)} %"


def change(before: float, after: float, text: Callable[[float, int], str] = number) -> str:
    """Both numbers, with as many digits as it takes to tell them apart: "51.2k to 61.2k"."""
    for digits in range(3 if text is number else 2, 10):
        texts = text(before, digits), text(after, digits)
        if texts[0] != texts[1] or before == after:
            break
    return f"{texts[0]} to {texts[1]}"


def listing(names: Iterable[str], total: int = 0) -> str:
    """Names as in speech, repeats dropped: "a", "a and b", "a, b and c", "a, b, c and 4 more".

    `total` counts those that are not among the names, too, where it is larger than their number.
    """
    unique = list(dict.fromkeys(names))
    shown = unique[:_LISTED]
    if (rest := max(total, len(unique)) - len(shown)) and shown:
        return ", ".join(shown) + f" and {rest} more"
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)


def span(duration_ms: int) -> str:
    """A length of time in its two largest units: "1 h 4 min", "3 d", "45 s"."""
    seconds = duration_ms // 1000
    parts: list[str] = []
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")):
        if (count := seconds // size) and len(parts) < _SPAN_UNITS:
            parts.append(f"{count} {unit}")
            seconds -= count * size
        elif parts:
            break
    return " ".join(parts) or "0 s"


def signal_name(signal: str) -> str:
    """A signal as people call it: `feature:income` is "income", `row:distance` "row distance"."""
    return _NAMES.get(signal) or signal.partition(":")[2] or signal


def place(alert: Alert) -> str:
    """Model, version and segment: "credit/3 country=DE", without the segment where it is all."""
    whole = f"{alert.model_id}/{alert.model_version}"
    return whole if alert.segment == "all" else f"{whole} {alert.segment}"


def movement(entry: SignalEntry) -> str:
    """How one signal moved: "income moved up, mean 51.2k to 61.2k"."""
    name = signal_name(entry.signal)
    before, after = entry.before, entry.after
    if before.rate is not None and after.rate is not None:
        what = "" if entry.measure == "rate" else f" {entry.measure}"
        return f"{name}{what} {change(before.rate, after.rate, percent)}"
    moved = f"moved {entry.direction}" if entry.direction in ("up", "down") else "changed"
    if shares := _category(dict(before.top or ()), dict(after.top or ())):
        category, old, new = shares
        return f'{name} {moved}, "{category}" {change(old, new, percent)}'
    if before.std and after.std and _widened(entry):
        return f"{name} {'widened' if after.std > before.std else 'narrowed'}, std {change(before.std, after.std)}"
    if before.mean is not None and after.mean is not None:
        return f"{name} {moved}, mean {change(before.mean, after.mean)}"
    if entry.effect.psi is not None:
        return f"{name} {moved}, PSI {number(entry.effect.psi)}"
    return f"{name} {moved}"


class Texts(NamedTuple):
    """What people read: one line that can stand alone, a few sentences around it, and what to do next."""

    summary: str
    description: str
    action: str


def texts(alert: Alert, event: EventName, details: Details, *, may_not_mature: bool = False) -> Texts:
    """The texts of an event; the annotations of `alert` are not looked at."""
    match details:
        case OutlierDetails() | ChallengerDetails() | RetrainDetails():
            said = _of_point(details)
        case _ if event == "notice":
            said = _of_unconfirmed(alert, may_not_mature=may_not_mature)
        case _:
            said = _of_condition(alert, details)
            if event == "resolved":
                said = _of_end(alert, said)
    return said._replace(summary=f"{place(alert)}: {said.summary}")


def meaning(impact: Impact) -> str:
    """What a change means for the model: why its alert is more, or less, urgent than its kind."""
    weighed = "" if impact.importance == 1 else f", weighed {number(impact.importance, 2)} times"
    return f"It concerns about {percent(impact.size * impact.share)} of the model's events{weighed}."


def _of_point(details: OutlierDetails | ChallengerDetails | RetrainDetails) -> Texts:
    match details:
        case OutlierDetails():
            return _of_outlier(details)
        case ChallengerDetails():
            return _of_challenger(details)
        case RetrainDetails():
            return Texts(
                f"retraining requested because of {details.reason}",
                f"{number(details.n_rows)} rows and {number(details.n_labels)} labels have come since the change.",
                f"Retrain on the data from {_day(details.data_from)} to {_day(details.data_to)}.",
            )


def _of_condition(alert: Alert, details: _Condition) -> Texts:
    match details:
        case DriftDetails():
            return _of_drift(alert, details)
        case QualityDetails():
            return _of_quality(alert, details)
        case BurstDetails():
            news = f"unusual rows {change(details.reference_rate, details.rate, percent)}"
            action = "Look for a changed unit or a new population behind the unusual rows."
            return Texts(news, _story(alert), action)
        case SilenceDetails():
            return _of_silence(alert, details)
        case PerformanceDetails():
            metric = details.metric.replace("_", " ")
            text = percent if metric.endswith("rate") or metric == "accuracy" else number
            news = f"{metric} {change(details.before, details.after, text)} over {number(details.n_pairs)} pairs"
            story = f"{_story(alert)}{_beside(details)}{_where(details.damage)}"
            return Texts(news, story, "Check that the labels are sound; then roll back or retrain.")
        case ConceptDetails():
            return _of_concept(alert, details)


def _of_outlier(details: OutlierDetails) -> Texts:
    names = [signal_name(part.signal) for part in details.contributions]
    worst = [f"{name} (score {part.score})" for name, part in zip(names, details.contributions, strict=True)]
    mostly = f", mostly {names[0]}" if names else ""
    parts = f" Most unusual: {listing(worst)}." if worst else ""
    return Texts(
        f"outlier {details.prediction_id}, score {details.score} over {details.threshold}{mostly}",
        f"A row this unusual has a probability of about {number(details.p_value, 1)} in the reference.{parts}",
        f"Look up prediction {details.prediction_id}; nothing to do where such a case is plausible.",
    )


def _of_challenger(details: ChallengerDetails) -> Texts:
    gain = f"{details.metric.replace('_', ' ')} {number(abs(details.gain), 2)}"
    champion, challenger = f"champion {details.champion}", f"challenger {details.challenger}"
    news = {
        "challenger_better": f"{challenger} beats {champion}, {gain} better",
        "champion_better": f"{champion} beats {challenger}, {gain} better",
        "no_difference_found": f"no difference found between {champion} and {challenger}",
    }[details.decision]
    low, high = details.interval
    better = details.decision == "challenger_better"
    return Texts(
        f"{news} over {number(details.n_pairs)} pairs",
        f"The gain lies within {number(low, 2)} to {number(high, 2)} with {percent(details.confidence)} confidence.",
        f"Consider promoting {details.challenger}." if better else f"Keep {details.champion}.",
    )


def _of_drift(alert: Alert, details: DriftDetails) -> Texts:
    entries = _first_per_signal(alert.signals)
    others = [signal_name(entry.signal) for entry in entries[1:]]
    also = f"; also {listing(others, details.signals_moved - 1)}" if others else ""
    first = movement(entries[0]) if entries else "signals moved"
    total = f"({details.signals_moved} of {_count(details.signals_watched, 'signal')})"
    skew = " It was there from the first window on: serving differs from training." if details.skew else ""
    return Texts(f"{first}{also} {total}", _story(alert) + skew, _on_drift(alert, details))


def _of_quality(alert: Alert, details: QualityDetails) -> Texts:
    checks = [
        f"{_CHECKS.get(check.signal) or f'{signal_name(check.signal)} {check.check}'}"
        f" {change(check.reference_rate, check.rate, percent)}"
        for check in details.checks
    ]
    signals = [check.signal for check in details.checks if not check.signal.startswith("row:")]
    if any(signal in _CHECKS for signal in signals):
        return Texts(listing(checks), _story(alert), "Check whoever sends the labels: delays, gaps and changed ids.")
    producers = _producers(signals) if signals else "the producer of the records"
    return Texts(
        listing(checks) or "records changed",
        _story(alert),
        f"Check {producers}: fields, types and categories.",
    )


def _of_silence(alert: Alert, details: SilenceDetails) -> Texts:
    seen = f"last seen at {_clock(details.last_seen, alert.updated_at)}" if details.last_seen else "never seen"
    expected = f"{number(details.expected_per_window)} expected in each"
    now = next((entry.after.mean for entry in alert.signals), None)
    news = f"no {details.what} for {_count(details.windows, 'window')}"
    if now:
        news = f"only {number(now)} {details.what} a window for {_count(details.windows, 'window')}"
    return Texts(
        f"{news}, {expected}",
        f"{details.what.capitalize()}: {seen}.",
        f"Check that {details.what} are still written to their topic.",
    )


def _of_concept(alert: Alert, details: ConceptDetails) -> Texts:
    residual = f"mean residual {number(details.residual, 2)} over {number(details.n_pairs)} pairs"
    first = "Check the producers of the inputs, which moved too; then retrain" if details.inputs_moved else "Retrain"
    return Texts(
        f"labels no longer follow the predictions, {residual}",
        f"{_story(alert)}{_beside(details)}{_where(details.damage)}",
        f"{first} on labels since the change.",
    )


def _beside(details: PerformanceDetails | ConceptDetails) -> str:
    """What else moved: inputs, labels, the relation of both."""
    relation = isinstance(details, PerformanceDetails) and details.relation_moved
    moved = [
        name
        for name, is_moved in (
            ("the inputs", details.inputs_moved),
            ("the share of each label", details.labels_moved),
            ("the relation of predictions and labels", relation),
        )
        if is_moved
    ]
    return f" Also moved: {listing(moved)}." if moved else ""


def _where(damage: Sequence[Damage]) -> str:
    """The largest shares of the loss."""
    places = []
    for one in damage[:_LISTED]:
        low, high = one.scores or (0.0, 1.0)
        places.append(f"{one.segment or f'scores {number(low)} to {number(high)}'} ({percent(one.share)})")
    return f" Most of it comes from {listing(places)}." if places else ""


def _of_unconfirmed(alert: Alert, *, may_not_mature: bool) -> Texts:
    """A notice of detections that the evidence does not confirm, or of a reference that may not mature, or of both."""
    detected = _detected(alert)
    reasons = [*([_MAY_NOT_MATURE] if may_not_mature else []), *([detected] if detected else [])]
    why = _WHY_NOT_MATURE if may_not_mature else _WHY_UNCONFIRMED
    return Texts("; ".join(reasons), why, "Nothing to do yet: watch whether an alert follows.")


def _of_end(alert: Alert, said: Texts) -> Texts:
    """The same alert, resolved."""
    names = listing(map(signal_name, _signals(alert))) or "all"
    ended = _ENDED[alert.resolve_reason or "returned"].format(names=names)
    return Texts(
        f"{alert.kind.replace('_', ' ')} resolved after {span(_open_ms(alert))}, {ended}",
        said.description,
        _AFTER_THE_END.get(alert.resolve_reason or "returned", "Nothing to do."),
    )


def _story(alert: Alert) -> str:
    """Since when and in which shape, what else moved, and which other detectors saw it."""
    sentences = [_since(alert)]
    others = [movement(entry) for entry in _first_per_signal(alert.signals)[1:]]
    if others:
        sentences.append(f"Also: {'; '.join(others[:_LISTED])}.")
    seen_by = [_DETECTORS.get(entry.detector, entry.detector) for entry in alert.signals if entry.evidence is None]
    if seen_by:
        sentences.append(f"Detected as well by {listing(seen_by)}.")
    return " ".join(sentences)


def _since(alert: Alert) -> str:
    what = _WHAT.get(alert.kind, "It")
    at = f" at about {_clock(alert.change_point.at, alert.updated_at)}" if alert.change_point else ""
    if alert.resolve_reason == "returned":
        return f"{what} changed{at} and returned."
    if alert.change_type and at:
        return f"{what} {_CHANGED[alert.change_type].format(at=at)}."
    return f"{what} changed{at}."


def _detected(alert: Alert) -> str:
    by_signal: dict[str, list[SignalEntry]] = {}
    for entry in alert.signals:
        by_signal.setdefault(entry.signal, []).append(entry)
    texts = []
    for entries in by_signal.values():
        detectors = listing(_DETECTORS.get(entry.detector, entry.detector) for entry in entries)
        texts.append(f"{movement(entries[0])} ({detectors})")
    return f"{listing(texts)}, not confirmed by the evidence" if texts else ""


def _on_drift(alert: Alert, details: DriftDetails) -> str:
    signals = _signals(alert)
    features = [signal for signal in signals if signal.startswith("feature:")]
    if details.skew:
        names = listing(map(signal_name, features or signals), details.signals_moved)
        return f"Compare how training and serving compute {names}."
    if alert.kind == "prediction_drift":
        if set(signals) == {"latency"}:
            return "Check the load and the hosts of the model."
        return "Look for a data_drift alert of this model; without one, check what was deployed last."
    if not features:
        return "Look for a broken join or default value: features no longer go together as before."
    return f"Check {_producers(features)} before retraining."


def _producers(signals: Iterable[str]) -> str:
    names = list(dict.fromkeys(map(signal_name, signals)))
    return f"the producer{'s' if len(names) > 1 else ''} of {listing(names)}"


def _first_per_signal(entries: list[SignalEntry]) -> list[SignalEntry]:
    """The leading entry of each signal that the evidence names, in their order."""
    first: dict[str, SignalEntry] = {}
    for entry in entries:
        if entry.evidence is not None:
            first.setdefault(entry.signal, entry)
    return list(first.values())


def _signals(alert: Alert) -> list[str]:
    return [entry.signal for entry in _first_per_signal(alert.signals)]


def _category(before: dict[str, float], after: dict[str, float]) -> tuple[str, float, float] | None:
    """The category whose share moved most, ties to the first of the reference, with its shares.

    Only of those known on both sides: the lists are cut, so a category that is not in one may still be frequent there.
    """
    known = [category for category in before if category in after]
    if not known:
        return None
    category = max(known, key=lambda name: abs(after[name] - before[name]))
    return category, before[category], after[category]


def _widened(entry: SignalEntry) -> bool:
    """Whether the spread of a signal moved more than its mean, both on the scale of its reference."""
    before, after = entry.before, entry.after
    if not before.std or not after.std:
        return False
    shift = abs((after.mean or 0.0) - (before.mean or 0.0)) / before.std
    return abs(log(after.std / before.std)) > shift


def _plain(value: float, digits: int) -> str:
    decimals = max(0, digits - 1 - floor(log10(abs(value)))) if value else 0
    text = f"{value:.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _count(amount: int, noun: str) -> str:
    return f"{amount} {noun}{'' if amount == 1 else 's'}"


def _open_ms(alert: Alert) -> int:
    lasted = datetime.fromisoformat(alert.updated_at) - datetime.fromisoformat(alert.starts_at)
    return lasted // timedelta(milliseconds=1)


def _clock(time: str, now: str) -> str:
    """Hour and minute in UTC, with the day where it is not that of `now`."""
    return time[11:16] if time[:10] == now[:10] else _day(time)


def _day(time: str) -> str:
    return f"{time[:10]} {time[11:16]}"
