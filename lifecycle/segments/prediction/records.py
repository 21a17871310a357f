"""What fitting and predicting return, and how it is kept in `prediction_runs`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from lifecycle.segments.prediction.bgnbd import BgNbd
from lifecycle.segments.prediction.gamma_gamma import GammaGamma
from lifecycle.segments.prediction.likelihood import Estimate

DAYS_PER_WEEK = 7


@dataclass(frozen=True)
class Fitted:
    """Both models as of an instant, or sentences that say why not. `problem`: nothing can be predicted;
    `spend_problem`: orders can, spend cannot."""

    as_of: datetime
    horizon_days: int
    customers: int
    repeat_customers: int
    orders: Estimate | None = None
    """BG/NBD, alpha in weeks."""
    spend: Estimate | None = None
    """Gamma-gamma, v in minor units."""
    spenders: int = 0
    """Repeat customers with a spend above 0: those behind `spend`."""
    correlation: float | None = None
    """Of frequency and mean spend among them; gamma-gamma takes it to be 0."""
    problem: str | None = None
    spend_problem: str | None = None
    prediction_run_id: int | None = None
    """Its row in `prediction_runs`; None: not stored."""

    @property
    def bgnbd(self) -> BgNbd | None:
        return BgNbd(**self.orders.values) if self.orders else None

    @property
    def gamma_gamma(self) -> GammaGamma | None:
        return GammaGamma(**self.spend.values) if self.spend else None

    def parameters(self) -> dict[str, Any]:
        """As in `prediction_runs.parameters`; no model that could not be fitted, but why."""
        told: dict[str, Any] = {}
        if self.orders:
            told["bg_nbd"] = {**_told(self.orders), "customers": self.customers, "alpha_in": "weeks"}
        if self.spend:
            told["gamma_gamma"] = {**_told(self.spend), "customers": self.spenders, "v_in": "minor units"}
        if self.spend and self.correlation is not None:
            told["gamma_gamma"]["correlation"] = self.correlation
        if self.spend_problem:
            told["gamma_gamma"] = {"problem": self.spend_problem}
        return told

    @classmethod
    def stored(cls, row: Any) -> Fitted:
        """From a row of `prediction_runs`."""
        orders, spend = row.parameters.get("bg_nbd"), row.parameters.get("gamma_gamma", {})
        return cls(
            as_of=row.as_of,
            horizon_days=row.horizon_days,
            customers=row.customers,
            repeat_customers=row.repeat_customers,
            orders=_read(orders) if orders else None,
            spend=_read(spend) if "values" in spend else None,
            spenders=spend.get("customers", 0),
            correlation=spend.get("correlation"),
            problem=row.problem,
            spend_problem=spend.get("problem"),
            prediction_run_id=row.prediction_run_id,
        )


@dataclass(frozen=True)
class Calibration:
    """The models fitted to the orders before a period at the end, beside what happened in that period.

    `rows`, one for each frequency before it that there is: frequency ("0" to "6", "7+"), customers, and expected
    and seen, the means of one customer's days with an order; empty where too little was left to fit (`problem`).
    """

    holdout_days: int
    rows: list[dict[str, Any]] = field(default_factory=list)
    problem: str | None = None

    @property
    def expected(self) -> float:
        """Days with an order, of all customers together."""
        return float(sum(row["customers"] * row["expected"] for row in self.rows))

    @property
    def seen(self) -> int:
        return round(sum(row["customers"] * row["seen"] for row in self.rows))


@dataclass(frozen=True)
class PredictionRun:
    fitted: Fitted
    calibration: Calibration
    predicted: int
    """Customers with a prediction."""

    def sentence(self) -> str:
        fitted = self.fitted
        as_of = f"as of {fitted.as_of:%Y-%m-%d %H:%M} UTC"
        if fitted.problem:
            return f"No predictions {as_of}: {fitted.problem}"
        told = f"{self.predicted:,} customers predicted for {fitted.horizon_days} days {as_of}"
        if self.calibration.rows:
            found = self.calibration
            told += f"; of {found.seen:,} days with an order seen in the last {found.holdout_days} days"
            told += f", kept from the fit, {found.expected:,.0f} were expected"
        return f"{told}; {fitted.spend_problem}" if fitted.spend_problem else told


def _told(estimate: Estimate) -> dict[str, Any]:
    return {
        "values": dict(estimate.values),
        "standard_errors": dict(estimate.standard_errors),
        "log_likelihood": estimate.log_likelihood,
    }


def _read(told: Mapping[str, Any]) -> Estimate:
    return Estimate(told["values"], told["standard_errors"], told["log_likelihood"])
