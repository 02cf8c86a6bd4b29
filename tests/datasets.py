"""Published data with a known drift: the car-loan stream of NannyML, read out of its wheel, which `make setup` fetches.

50,000 rows of reference and 50,000 of analysis, one per 8 min 43.152 s; at analysis row 25,000, 2019-03-31 03:00,
the applicants change: `car_value`, `repaid_loan_on_prev_car`, `loan_length`, `salary_range` and the score move, while
`debt_to_income_ratio`, `driver_tenure`, `size_of_downpayment` and the label stay as they were.
"""

import csv
import io
import zipfile
from functools import cache
from pathlib import Path
from typing import Final, Literal

WHEEL: Final = Path(__file__).parent.parent / ".cache" / "datasets" / "nannyml-0.13.1-py3-none-any.whl"
DRIFT_ROW: Final = 25_000
"""The first row of the analysis after the change."""
NUMERIC: Final = ("car_value", "debt_to_income_ratio", "loan_length", "driver_tenure")
CATEGORICAL: Final = ("salary_range", "repaid_loan_on_prev_car", "size_of_downpayment")
MOVED: Final = frozenset({"car_value", "repaid_loan_on_prev_car", "loan_length", "salary_range"})
CONTROLS: Final = frozenset({"debt_to_income_ratio", "driver_tenure", "size_of_downpayment"})

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
