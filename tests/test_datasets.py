"""The data others rely on is what its page says."""

from datetime import UTC, datetime, timedelta

from datasets import CATEGORICAL, DRIFT_ROW, MOVED, NUMERIC, car_loan


def test_the_car_loan_stream_is_what_its_page_says() -> None:
    analysis = car_loan("analysis")
    times = [datetime.fromisoformat(row["timestamp"]).replace(tzinfo=UTC) for row in analysis[: DRIFT_ROW + 1]]

    assert (len(car_loan("reference")), len(analysis), len(car_loan("analysis_target"))) == (50_000, 50_000, 50_000)
    assert set(analysis[0]) == {"id", *NUMERIC, *CATEGORICAL, "timestamp", "y_pred_proba", "y_pred"}
    assert times[DRIFT_ROW] == datetime(2019, 3, 31, 3, tzinfo=UTC)
    assert abs(times[1] - times[0] - timedelta(minutes=8, seconds=43.152)) < timedelta(milliseconds=1)


def test_the_drift_of_the_car_loan_stream_is_where_its_page_says() -> None:
    def mean(rows: tuple[dict[str, str], ...]) -> float:
        return sum(float(row["car_value"]) for row in rows) / len(rows)

    analysis = car_loan("analysis")

    before, after = mean(analysis[:DRIFT_ROW]), mean(analysis[DRIFT_ROW:])

    assert "car_value" in MOVED
    assert abs(mean(car_loan("reference")) / before - 1) < 0.01
    assert after / before > 1.3
