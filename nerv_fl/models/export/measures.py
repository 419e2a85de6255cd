"""The measures that stand at the head of a card: each beside what a trivial model reaches on the same data.

They are picked by name out of what a training or a run wrote down. What is not there is left out, never guessed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from nerv_fl.models.export.export_source import Source


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One measure: what it is, its value, and (what, value) of each trivial model."""

    name: str
    value: float
    trivial: tuple[tuple[str, float], ...] = ()

    def text(self) -> str:
        """Return it in one line.

        >>> Measure(name="masked cross-entropy", value=3.68, trivial=(("unigram", 3.69),)).text()
        'masked cross-entropy 3.68 (unigram 3.69)'
        """
        beside = ", ".join(f"{name} {value:.4g}" for name, value in self.trivial)
        return f"{self.name} {self.value:.4g}" + (f" ({beside})" if beside else "")


@dataclass(frozen=True, kw_only=True)
class _Pick:
    """Where a measure and those of the trivial models stand, as paths of keys."""

    name: str
    value: str
    trivial: tuple[tuple[str, str], ...] = ()


_CROSS_ENTROPY: Final = "masked cross-entropy, nats"
_DRIFT: Final = "relative drift"
_LOGISTIC: Final = "measures/logistic, clean windows/clean_recall_"
PICKS: Final[Mapping[str, tuple[_Pick, ...]]] = {
    "encoder": (
        _Pick(
            name=_CROSS_ENTROPY,
            value="round/masked_ce/value",
            trivial=(("unigram", "round/masked_ce/unigram"), ("per account", "round/masked_ce/per_account")),
        ),
        _Pick(
            name=_CROSS_ENTROPY,
            value="measures/masked_ce",
            trivial=(("unigram", "unigram"), ("per account", "per_account")),
        ),
        _Pick(
            name=_DRIFT,
            value="round/drift/relative",
            trivial=(
                ("random weights", "references/random_weights/drift/relative"),
                ("V alone", "references/v_alone/drift/relative"),
            ),
        ),
        _Pick(
            name="residual share",
            value="round/residual_share",
            trivial=(
                ("random weights", "references/random_weights/residual_share"),
                ("V alone", "references/v_alone/residual_share"),
            ),
        ),
        _Pick(
            name="effective rank of V",
            value="round/effective_rank",
            trivial=(("random weights", "references/random_weights/effective_rank"),),
        ),
    ),
    "predictor": tuple(
        pick
        for name in ("int8", "float32")
        for pick in (
            _Pick(
                name=f"finalised candidate of honest races at 50 % of the votes, {name}",
                value=f"{name}/1/agreement",
                trivial=(("majority", f"{name}/1/majority"), ("by reputation", f"{name}/1/reputation")),
            ),
            _Pick(
                name=f"validity of candidates at 50 % of the votes, {name}",
                value=f"{name}/1/validity",
                trivial=(("all valid", f"{name}/1/always_valid"),),
            ),
        )
    ),
    "forecaster": (
        *(
            _Pick(
                name=f"clean onsets, recall at {percent} % false alarms, {name}",
                value=f"measures/{name}/clean_recall_{percent}",
                trivial=(("logistic on the last minute", f"{_LOGISTIC}{percent}"),),
            )
            for name in ("int8", "float32")
            for percent in (5, 1)
        ),
        _Pick(
            name="overload, cross-entropy in nats",
            value="round/measures/overload",
            trivial=(("base rate", "round/trivial/overload"),),
        ),
        _Pick(
            name="next minute's metrics, error in root mean square changes",
            value="round/measures/metrics",
            trivial=(("no change", "round/trivial/metrics"),),
        ),
    ),
}


def measures_of(source: Source) -> tuple[Measure, ...]:
    """Return the measures that are known of a model, the headline first."""
    return pick_measures(source.kind, source.metrics)


def pick_measures(kind: str, metrics: Mapping[str, object]) -> tuple[Measure, ...]:
    """Return the measures that stand in what was written down of a kind of model."""
    found = []
    for pick in PICKS.get(kind, ()):
        value = _number(metrics, pick.value)
        if value is not None:
            beside = ((name, _number(metrics, path)) for name, path in pick.trivial)
            trivial = tuple((name, number) for name, number in beside if number is not None)
            found.append(Measure(name=pick.name, value=value, trivial=trivial))
    return tuple(found)


def _number(metrics: object, path: str) -> float | None:
    """Return the number at a path of keys and places, or None."""
    for key in path.split("/"):
        if isinstance(metrics, Mapping):
            metrics = metrics.get(key)
        elif isinstance(metrics, Sequence) and key.isdigit() and int(key) < len(metrics):
            metrics = metrics[int(key)]
        else:
            return None
    return float(metrics) if isinstance(metrics, int | float) and not isinstance(metrics, bool) else None
