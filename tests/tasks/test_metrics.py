import numpy as np
import pytest

from nerv_fl.tasks.metrics import Means, Measured, broken_ratio, mean_of, ratio


def measured(*losses: float) -> Measured:
    return Measured(loss_B=np.array(losses), columns={"error": 2 * np.array(losses)})


def test_parts_are_joined_in_order() -> None:
    whole = Measured.joined([measured(1.0, 2.0), measured(5.0)])

    assert whole.loss_B.tolist() == [1.0, 2.0, 5.0]
    assert whole.columns["error"].tolist() == [2.0, 4.0, 10.0]


def test_means() -> None:
    assert mean_of(measured(1.0, 2.0)) == Means(loss=1.5, measures={"error": 3.0}, finite=True)
    assert not mean_of(measured(1.0, np.nan)).finite


@pytest.mark.parametrize(
    ("error", "reason"),
    [(1.01, ""), (0.5, ""), (1.02, "error is 1.0200 x before, above 1.01 x"), (np.inf, "the model is not finite")],
)
def test_no_measure_may_rise_beyond_its_limit(error: float, reason: str) -> None:
    after = Means(loss=0.0, measures={"error": error}, finite=bool(np.isfinite(error)))

    assert broken_ratio(Means(loss=0.0, measures={"error": 1.0}, finite=True), after, max_ratio=1.01) == reason


@pytest.mark.parametrize(("after", "before", "expected"), [(2, 4, 0.5), (0, 0, 1.0), (1, 0, float("inf")), (0, 2, 0)])
def test_ratio(after: float, before: float, expected: float) -> None:
    assert ratio(after, before) == expected
