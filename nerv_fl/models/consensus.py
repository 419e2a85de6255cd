"""Predicting a race as a node does: by the model's int8 file, and by the exact quorum rule where that decides or must.

Once the events decide a race, the rule says which candidate is finalised; validity is still the model's. Where the
model's file is missing or damaged, or a race has more events than it can read, the rule answers everything, and says
so: the leader by reputation, and validity by disputes.

Shapes: C = 4 candidates, D = 512, K = 5 outcomes (the last: none).
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnxruntime

from nerv_fl.models.consensus_inputs import DELTA_WIDTH, HEADER, RaceInputs
from nerv_fl.quorum import DISPUTED, MAX_CANDIDATES, MAX_EVENTS, NO_OUTCOME, PAST, Standing, standing
from nerv_fl.types import FloatArray

INPUTS: Final = ("tokens", "headers", "deltas", "past")
OUTPUTS: Final = ("valid", "outcome", "delta")

_LOG = logging.getLogger(__name__)
Run = Callable[[Mapping[str, npt.NDArray[Any]]], list[npt.NDArray[np.float32]]]


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What is to be expected of a race.

    Attributes:
        outcome_K: float64, probability of each candidate, and last of none.
        valid_C: float64, probability that each candidate is valid; 0 where there is none.
        delta_D: float32, the next delta: that of the candidates, by their probabilities.
        source: Who says what will be finalised: "model", or "rule".
        reason: Why the rule does; empty for the model.
    """

    outcome_K: FloatArray
    valid_C: FloatArray
    delta_D: npt.NDArray[np.float32]
    source: str
    reason: str = ""


class ConsensusPredictor:
    """Predicts races, one at a time.

    Args:
        path: ONNX file of a predictor; if it is missing, damaged, or another model's, the rule answers all questions.

    Guarantees:
        No file makes this raise; `fallback` says why the rule answers, and is empty while the model does.
    """

    def __init__(self, path: Path) -> None:
        self.fallback = ""
        self._run: Run | None = None
        try:
            self._run = open_onnx(path)
        except Exception as error:  # noqa: BLE001 (whatever is wrong with the file, a node must go on)
            reason = " ".join(str(error).split())
            self.fallback = f"{path} cannot be used ({reason}), expected a predictor in ONNX"
            _LOG.warning("%s: the quorum rule answers in its place", self.fallback)

    def predict(
        self, inputs: RaceInputs, *, token: npt.NDArray[np.uint16], weight: npt.NDArray[np.uint16]
    ) -> Prediction:
        """Predict one race.

        Args:
            inputs: The race, B = 1.
            token: uint16 [E], its events so far.
            weight: uint16 [64], reputation of the validators.

        Raises:
            DataError: If the events break the rule.
        """
        count, deltas_CD = standing(token, weight), inputs.deltas_BCD[0].numpy()
        ruled = _by_rule(count, deltas_CD, reason=self.fallback)
        if self._run is None:
            return ruled
        if not 0 < len(token) <= MAX_EVENTS:
            return replace(ruled, reason=f"{len(token)} events, expected 1 to {MAX_EVENTS}")
        valid_BC, outcome_BK, delta_BD = self._run(as_feed(inputs))
        if not all(np.isfinite(part).all() for part in (valid_BC, outcome_BK, delta_BD)):
            return replace(ruled, reason="the model answered with NaN, expected finite numbers")
        present_C = inputs.headers_BCH[0, :, 0].numpy() > 0
        valid_C = np.where(present_C, 1.0 / (1.0 + np.exp(-valid_BC[0].astype(np.float64))), 0.0)
        if count.outcome is not None:
            return replace(ruled, valid_C=valid_C, reason="the race is decided")
        return Prediction(outcome_K=_softmax(outcome_BK[0]), valid_C=valid_C, delta_D=delta_BD[0], source="model")


def open_onnx(path: Path) -> Run:
    """Return what runs a predictor's ONNX file, on one thread, after one trial.

    Raises:
        Exception: Whatever is wrong with the file.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])

    def run(feed: Mapping[str, npt.NDArray[Any]]) -> list[npt.NDArray[np.float32]]:
        found: list[npt.NDArray[np.float32]] = session.run(list(OUTPUTS), dict(feed))
        return found

    answers = run(longest_feed())
    shapes = [tuple(part.shape) for part in answers]
    expected = [(1, MAX_CANDIDATES), (1, NO_OUTCOME + 1), (1, DELTA_WIDTH)]
    if shapes != expected:
        raise ValueError(f"its outputs are {shapes}, expected {expected}")
    if not all(np.isfinite(part).all() for part in answers):
        raise ValueError("it answers with NaN, expected finite numbers")
    return run


def as_feed(inputs: RaceInputs) -> dict[str, npt.NDArray[Any]]:
    """Return the inputs as arrays by the names they have in ONNX."""
    tensors = (inputs.tokens_BL, inputs.headers_BCH, inputs.deltas_BCD, inputs.past_BPD)
    return {name: tensor.numpy() for name, tensor in zip(INPUTS, tensors, strict=True)}


def longest_feed() -> dict[str, npt.NDArray[Any]]:
    """Return a race of 512 events, all proposals, as arrays by the names they have in ONNX."""
    shapes = ((MAX_CANDIDATES, len(HEADER)), (MAX_CANDIDATES, DELTA_WIDTH), (PAST, DELTA_WIDTH))
    rest = [np.zeros((1, *shape), dtype=np.float32) for shape in shapes]
    return dict(zip(INPUTS, [np.zeros((1, MAX_EVENTS), dtype=np.int64), *rest], strict=True))


def _by_rule(count: Standing, deltas_CD: npt.NDArray[np.float32], *, reason: str) -> Prediction:
    leader = count.leader if count.published else NO_OUTCOME
    chosen = leader if count.outcome is None else count.outcome
    outcome_K = np.eye(NO_OUTCOME + 1)[chosen]
    present_C = np.arange(MAX_CANDIDATES) < count.published
    return Prediction(
        outcome_K=outcome_K,
        valid_C=np.where(present_C & (count.disputed < DISPUTED * count.total), 1.0, 0.0),
        delta_D=np.asarray(outcome_K[:MAX_CANDIDATES] @ deltas_CD, dtype=np.float32),
        source="rule",
        reason=reason,
    )


def _softmax(logits_K: npt.NDArray[np.float32]) -> FloatArray:
    shifted = np.exp(logits_K.astype(np.float64) - logits_K.max())
    return np.asarray(shifted / shifted.sum())
