"""Texts for the person on call: short numbers that show a difference; what, since when, what next."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from stream.alerts import evidence, wording
from stream.alerts.evidence import Sender, Situation, Subject
from stream.alerts.lifecycle import Emission
from stream.alerts.policy import Settings
from stream.wire.outbound import (
    BurstDetails,
    ChallengerDetails,
    ConceptDetails,
    Contribution,
    Description,
    Details,
    DriftDetails,
    EventName,
    Kind,
    OutlierDetails,
    PerformanceDetails,
    QualityCheck,
    QualityDetails,
    ResolveReason,
    RetrainDetails,
    SignalEntry,
    SilenceDetails,
)

T_0206 = 1_795_226_760_000
MINUTE = 60_000


def entry(
    signal: str, before: Description, after: Description, *, measure: str = "distribution", by: str = "histogram"
) -> SignalEntry:
    strength = 12.0 if signal == "feature:income" else 9.5
    confirmed = strength if by in ("histogram", "mean") else None
    return evidence.entry(
        signal, measure, by, "drift", statistic=9.5, threshold=9.0, evidence=confirmed, n=500,
        before=before, after=after, effect=evidence.effect(0.31, 0.19),
    )  # fmt: skip


INCOME = entry("feature:income", Description(mean=51200.5, std=9000.0), Description(mean=61230.4, std=9100.0))
AGE = entry("feature:age", Description(mean=38.6, std=14.9), Description(mean=38.7, std=20.9))
REGION = entry(
    "feature:region", Description(top=[("eu", 0.62), ("us", 0.3)]), Description(top=[("eu", 0.48), ("asia", 0.2)])
)
DISTANCE = entry("row:distance", Description(mean=19.9), Description(mean=44.0))
LATENCY = entry("latency", Description(mean=12.3), Description(mean=99.4))
UNNAMED = entry("feature:blob", Description(), Description())
SEEN = entry("feature:income", Description(mean=1.0), Description(mean=1.1), measure="mean", by="adwin")
MISSING = entry("feature:age", Description(rate=0.02), Description(rate=0.41), measure="missing", by="mean")
QUALITY = QualityDetails(
    [
        QualityCheck("missing", "feature:age", 0.41, 0.02, 5000),
        QualityCheck("unseen", "feature:region", 0.06, 0.0, 5000),
    ]
)


def texts(
    kind: Kind,
    details: Details,
    *signals: SignalEntry,
    event: EventName = "firing",
    change_type: str | None = "sudden",
    since: int | None = 3,
    reason: ResolveReason | None = None,
    detections: tuple[SignalEntry, ...] = (),
    may_not_mature: bool = False,
    open_minutes: int = 0,
) -> list[str]:
    """Summary, description and action of an alert since 02:06, whose change began `since` minutes before."""
    now = T_0206 + open_minutes * MINUTE
    emission = Emission(
        event=event,
        sequence=0,
        starts_at_ms=T_0206,
        updated_at_ms=now,
        ends_at_ms=now if event == "resolved" else None,
        resolve_reason=reason,
        detections=detections,
        may_not_mature=may_not_mature,
    )
    situation = Situation(
        severity="warning",
        details=details,
        signals=signals,
        change_type=change_type,  # type: ignore[arg-type]
        change_point=None if since is None else evidence.change_point(*[T_0206 - since * MINUTE] * 3),
    )
    event_ = evidence.build(
        Sender("s", "1", "0" * 16), Settings(), Subject("credit", "3", "all", kind), emission, situation
    )
    return list(event_.data.annotations.values())


GOLDEN = {
    "several signals moved": (
        texts("data_drift", DriftDetails(42, 2, skew=False), INCOME, AGE),
        "credit/3: income moved up, mean 51.2k to 61.2k; also age (2 of 42 signals)",
        "The inputs changed at about 02:03 and stayed changed. Also: age widened, std 14.9 to 20.9.",
        "Check the producers of income and age before retraining.",
    ),
    "categories, and a change of yesterday": (
        texts("data_drift", DriftDetails(9, 1, skew=False), REGION, change_type="recurring", since=180),
        'credit/3: region changed, "eu" 62 % to 48 % (1 of 9 signals)',
        "The inputs changed at about 2026-11-20 23:06, to a state seen before.",
        "Check the producer of region before retraining.",
    ),
    "more moved than are listed": (
        texts("data_drift", DriftDetails(99, 80, skew=False), INCOME, AGE, change_type="gradual", detections=(SEEN,)),
        "credit/3: income moved up, mean 51.2k to 61.2k; also age and 78 more (80 of 99 signals)",
        (
            "The inputs began to move at about 02:03 and moved on gradually. Also: age widened, std 14.9 to 20.9. "
            "Detected as well by ADWIN."
        ),
        "Check the producers of income and age before retraining.",
    ),
    "marginals silent, correlation moved": (
        texts("data_drift", DriftDetails(21, 1, skew=False), DISTANCE),
        "credit/3: row distance moved up, mean 19.9 to 44 (1 of 21 signals)",
        "The inputs changed at about 02:03 and stayed changed.",
        "Look for a broken join or default value: features no longer go together as before.",
    ),
    "skew": (
        texts("data_drift", DriftDetails(21, 1, skew=True), INCOME),
        "credit/3: income moved up, mean 51.2k to 61.2k (1 of 21 signals)",
        (
            "The inputs changed at about 02:03 and stayed changed. "
            "It was there from the first window on: serving differs from training."
        ),
        "Compare how training and serving compute income.",
    ),
    "without numbers to compare": (
        texts("data_drift", DriftDetails(21, 1, skew=False), UNNAMED, change_type=None, since=None),
        "credit/3: blob changed, PSI 0.31 (1 of 21 signals)",
        "The inputs changed.",
        "Check the producer of blob before retraining.",
    ),
    "back again": (
        texts(
            "data_drift", DriftDetails(9, 1, skew=False), INCOME, event="resolved", reason="returned", open_minutes=64
        ),
        "credit/3: data drift resolved after 1 h 4 min, income back at the reference",
        "The inputs changed at about 02:03 and returned.",
        "Nothing to do.",
    ),
    "replaced reference": (
        texts("data_drift", DriftDetails(9, 1, skew=False), INCOME, event="resolved", reason="new_reference"),
        "credit/3: data drift resolved after 0 s, a new reference is in force",
        "The inputs changed at about 02:03 and stayed changed.",
        "Nothing to do: windows are compared with the new reference from now on.",
    ),
    "retired": (
        texts("silence", SilenceDetails("predictions", None, 8.0, 1), event="resolved", reason="retired", since=None),
        "credit/3: silence resolved after 0 s, the version has gone silent",
        "Predictions: never seen.",
        "Nothing to do if the version was withdrawn; else check that its predictions arrive.",
    ),
    "detections without evidence": (
        texts("data_drift", DriftDetails(9, 0, skew=False), event="notice", detections=(SEEN,)),
        "credit/3: income moved up, mean 1 to 1.1 (ADWIN), not confirmed by the evidence",
        "A detector without a false-alarm guarantee fired; the evidence of the group does not confirm it.",
        "Nothing to do yet: watch whether an alert follows.",
    ),
    "a reference that may not mature": (
        texts("data_drift", DriftDetails(9, 0, skew=False), event="notice", may_not_mature=True),
        "credit/3: the reference may not take up what was learned since, because the data moved",
        "What came since it was learned differs from it by more than the tolerance: it stays in force.",
        "Nothing to do yet: watch whether an alert follows.",
    ),
    "slow answers": (
        texts("prediction_drift", DriftDetails(3, 1, skew=False), LATENCY, change_type="temporary"),
        "credit/3: latency moved up, mean 12.3 to 99.4 (1 of 3 signals)",
        "The predictions changed at about 02:03, but only for a time.",
        "Check the load and the hosts of the model.",
    ),
    "broken records": (
        texts("data_quality", QUALITY, MISSING, change_type=None),
        "credit/3: age missing 2 % to 41 % and region unseen 0 % to 6 %",
        "The quality of the records changed at about 02:03.",
        "Check the producers of age and region: fields, types and categories.",
    ),
    "one outlier": (
        texts(
            "outlier",
            OutlierDetails("p-7f3a", 15, 12, 3e-8, [Contribution("feature:income", 19, None)]),
            event="notice",
        ),
        "credit/3: outlier p-7f3a, score 15 over 12, mostly income",
        "A row this unusual has a probability of about 3e-8 in the reference. Most unusual: income (score 19).",
        "Look up prediction p-7f3a; nothing to do where such a case is plausible.",
    ),
    "a burst of outliers": (
        texts("outlier", BurstDetails(0.031, 0.0012, 5000)),
        "credit/3: unusual rows 0.12 % to 3.1 %",
        "The rate of unusual rows changed at about 02:03 and stayed changed.",
        "Look for a changed unit or a new population behind the unusual rows.",
    ),
    "silence": (
        texts("silence", SilenceDetails("predictions", "2026-11-21T02:00:00.000Z", 833.3, 5), since=None),
        "credit/3: no predictions for 5 windows, 833 expected in each",
        "Predictions: last seen at 02:00.",
        "Check that predictions are still written to their topic.",
    ),
    "performance": (
        texts("performance", PerformanceDetails("error_rate", 0.11, 0.19, (0.16, 0.22), 0.95, 4210, 0.38, 5400.0)),
        "credit/3: error rate 11 % to 19 % over 4.21k pairs",
        "The performance changed at about 02:03 and stayed changed.",
        "Check that the labels are sound; then roll back or retrain.",
    ),
    "concept drift": (
        texts("concept_drift", ConceptDetails(-0.018, (-0.03, -0.01), 0.95, 4210, inputs_moved=False)),
        "credit/3: labels no longer follow the predictions, mean residual -0.018 over 4.21k pairs",
        "The relation between predictions and labels changed at about 02:03 and stayed changed.",
        "Retrain on labels since the change.",
    ),
    "a better challenger": (
        texts(
            "challenger",
            ChallengerDetails("3", "4", "error_rate", 0.021, (0.004, 0.038), 0.95, 1.42, 18250, "challenger_better"),
            event="notice",
        ),
        "credit/3: challenger 4 beats champion 3, error rate 0.021 better over 18.2k pairs",
        "The gain lies within 0.004 to 0.038 with 95 % confidence.",
        "Consider promoting 4.",
    ),
    "a retrain request": (
        texts(
            "retrain",
            RetrainDetails(
                "performance",
                ["0" * 32],
                "2026-11-21T02:03:00.000Z",
                "2026-11-21T02:40:00.000Z",
                182_600,
                40_210,
                "2026-11-22T02:40:00.000Z",
            ),
            event="notice",
        ),
        "credit/3: retraining requested because of performance",
        "183k rows and 40.2k labels have come since the change.",
        "Retrain on the data from 2026-11-21 02:03 to 2026-11-21 02:40.",
    ),
}


@pytest.mark.parametrize("case", GOLDEN)
def test_an_alert_says_what_since_when_and_what_next(case: str) -> None:
    said, *expected = GOLDEN[case]
    assert said == expected


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (812.0, "812"),
        (999.9, "1k"),
        (51200.5, "51.2k"),
        (-51200.5, "-51.2k"),
        (1e6, "1M"),
        (2.5e9, "2.5G"),
        (1e15, "1.00e15"),
        (0.01234, "0.0123"),
        (3.14159e-8, "3.14e-8"),
        (100.0, "100"),
    ],
)
def test_a_number_is_short(value: float, text: str) -> None:
    assert wording.number(value) == text


@pytest.mark.parametrize(
    ("share", "text"), [(0.41, "41 %"), (0.0206, "2.1 %"), (0.0003, "0.03 %"), (0.0, "0 %"), (1.0, "100 %")]
)
def test_a_share_is_in_percent(share: float, text: str) -> None:
    assert wording.percent(share) == text


@given(st.floats(-1e12, 1e12), st.floats(0.001, 0.5))
def test_a_change_never_reads_as_none(before: float, by: float) -> None:
    after = before * (1 + by)
    assume(after != before and abs(before) > 1e-12)
    old, _, new = wording.change(before, after).partition(" to ")
    assert old != new


@pytest.mark.parametrize(
    ("duration_ms", "text"),
    [(999, "0 s"), (45_000, "45 s"), (64 * MINUTE, "1 h 4 min"), (3 * 86_400_000 + 5_000, "3 d"), (3_600_000, "1 h")],
)
def test_a_span_has_its_two_largest_units(duration_ms: int, text: str) -> None:
    assert wording.span(duration_ms) == text


def test_a_listing_reads_like_speech() -> None:
    assert wording.listing([]) == ""
    assert wording.listing(["a"]) == "a"
    assert wording.listing(["a", "b", "a"]) == "a and b"
    assert wording.listing("abc") == "a, b and c"
    assert wording.listing("abcdefg") == "a, b, c and 4 more"
    assert wording.listing("ab", total=9) == "a, b and 7 more"
