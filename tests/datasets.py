"""Published data with a known drift: the car-loan stream of NannyML, read out of its wheel, which `make setup` fetches.

50,000 rows of reference and 50,000 of analysis, one per 8 min 43.152 s; at analysis row 25,000, 2019-03-31 03:00,
the applicants change: `car_value`, `repaid_loan_on_prev_car`, `loan_length`, `salary_range` and the score move, while
`debt_to_income_ratio`, `driver_tenure`, `size_of_downpayment` and the label stay as they were.
"""

import csv
import io
import zipfile
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

from stream.profiles.cuts import Row

WHEEL: Final = Path(__file__).parent.parent / ".cache" / "datasets" / "nannyml-0.13.1-py3-none-any.whl"
DRIFT_ROW: Final = 25_000
"""The first row of the analysis after the change."""
NUMERIC: Final = ("car_value", "debt_to_income_ratio", "loan_length", "driver_tenure")
CATEGORICAL: Final = ("salary_range", "repaid_loan_on_prev_car", "size_of_downpayment")
MOVED: Final = frozenset({"car_value", "repaid_loan_on_prev_car", "loan_length", "salary_range"})
CONTROLS: Final = frozenset({"debt_to_income_ratio", "driver_tenure", "size_of_downpayment"})

MODEL: Final = "car-loan"

Part = Literal["reference", "analysis", "analysis_target"]


@cache
def car_loan(part: Part) -> tuple[dict[str, str], ...]:
    """Rows of one file in its order, every value as its text.

    `reference` has `repaid`, the true outcome, beside features, `timestamp`, `y_pred_proba` and `y_pred`; `analysis` is
    the same without it; `analysis_target` has `id` and `repaid`.

    Raises:
        FileNotFoundError: the wheel has not been fetched; says how to.
    """
    if not WHEEL.is_file():
        raise FileNotFoundError(f"the data of the tests is missing: run `make setup`, which fetches {WHEEL.name}")
    with zipfile.ZipFile(WHEEL) as wheel:
        text = wheel.read(f"nannyml/datasets/data/synthetic_car_loan_{part}.csv").decode()
    return tuple(csv.DictReader(io.StringIO(text)))


def time_of(row: dict[str, str]) -> int:
    """Milliseconds."""
    return int(datetime.fromisoformat(row["timestamp"]).replace(tzinfo=UTC).timestamp() * 1_000)


def features(row: dict[str, str]) -> dict[str, Any]:
    """As a prediction has them."""
    numbers = {name: float(row[name]) for name in NUMERIC if row[name]}
    return numbers | {name: row[name] for name in CATEGORICAL if row[name]}


def record(place: int, row: dict[str, str]) -> dict[str, Any]:
    """A row of the analysis as a prediction."""
    return {
        "prediction_id": f"a-{place}",
        "model_id": MODEL,
        "model_version": "1",
        "timestamp": time_of(row),
        "features": features(row),
        "prediction": {"label": row["y_pred"], "score": float(row["y_pred_proba"])},
    }


def training_rows() -> list[Row]:
    """The rows of `reference` as references are built from."""
    return [
        Row(
            prediction_id=f"r-{place}",
            time_ms=time_of(row),
            features=features(row),
            label=row["y_pred"],
            score=float(row["y_pred_proba"]),
        )
        for place, row in enumerate(car_loan("reference"))
    ]
