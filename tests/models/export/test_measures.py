"""Measures are picked by name, each beside its trivial model, and never guessed."""

import pytest

from nerv_fl.models.export.measures import Measure, pick_measures

ROUND = {
    "round": {
        "masked_ce": {"value": 3.68, "unigram": 3.69, "per_account": 3.1},
        "drift": {"relative": 0.1},
        "residual_share": 0.004,
        "effective_rank": 25.7,
    },
    "references": {"random_weights": {"drift": {"relative": 1.5}, "residual_share": 0.2, "effective_rank": 29.0}},
}


def test_a_runs_measures_stand_beside_trivial_models() -> None:
    assert [measure.text() for measure in pick_measures("encoder", ROUND)] == [
        "masked cross-entropy, nats 3.68 (unigram 3.69, per account 3.1)",
        "relative drift 0.1 (random weights 1.5)",
        "residual share 0.004 (random weights 0.2)",
        "effective rank of V 25.7 (random weights 29)",
    ]


def test_a_bootstraps_measures() -> None:
    found = pick_measures("encoder", {"measures": {"masked_ce": 3.2}, "unigram": 3.7, "per_account": 3.05})
    assert found[0] == Measure(
        name="masked cross-entropy, nats", value=3.2, trivial=(("unigram", 3.7), ("per account", 3.05))
    )


def test_a_predictors_measures_at_half_of_the_votes() -> None:
    scores = [{"agreement": 0.9}, {"agreement": 0.962, "majority": 0.9, "reputation": 0.92, "validity": 0.98}]
    found = pick_measures("predictor", {"int8": scores})
    assert [measure.text() for measure in found] == [
        "finalised candidate of honest races at 50 % of the votes, int8 0.962 (majority 0.9, by reputation 0.92)",
        "validity of candidates at 50 % of the votes, int8 0.98",
    ]


def test_a_forecasters_measures() -> None:
    table = {"int8": {"clean_recall_5": 0.96}, "logistic, clean windows": {"clean_recall_5": 0.9}}
    (found,) = pick_measures("forecaster", {"measures": table})
    assert found.text() == "clean onsets, recall at 5 % false alarms, int8 0.96 (logistic on the last minute 0.9)"


@pytest.mark.parametrize(
    ("kind", "metrics"),
    [
        ("encoder", {}),
        ("encoder", {"round": {"masked_ce": {"value": "3.6"}}}),
        ("predictor", {"int8": [{}]}),
        ("?", {}),
    ],
)
def test_what_is_not_there_is_left_out(kind: str, metrics: dict[str, object]) -> None:
    assert pick_measures(kind, metrics) == ()
