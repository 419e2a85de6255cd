import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from nerv_fl.data.consensus_schema import RaceBlock
from nerv_fl.models.consensus import ConsensusPredictor
from nerv_fl.models.consensus_inputs import RaceInputs, event_stops, make_inputs
from nerv_fl.models.predictor import Predictor
from nerv_fl.models.predictor_files import write_onnx
from nerv_fl.quorum import NO_OUTCOME, VOTE, standing
from nerv_fl.rng import torch_stream
from tests.models.races import draw_block, draw_table, half_of_the_votes


@pytest.fixture(scope="module")
def block() -> RaceBlock:
    return draw_block()


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = Predictor().eval()
    model.reset_parameters(torch_stream(1, "weights"))
    made: Path = tmp_path_factory.mktemp("predictor") / "p.onnx"
    write_onnx(model, made)
    return made


def one(
    block: RaceBlock, race: int, *, whole: bool
) -> tuple[RaceInputs, dict[str, np.ndarray[tuple[int], np.dtype[np.uint16]]]]:
    """Return one race at half of its votes or all, and its events and weights."""
    votes = block.num_votes.astype(np.int64) if whole else half_of_the_votes(block)
    inputs, _ = make_inputs(block, draw_table(), votes=votes)
    parts = (inputs.tokens_BL, inputs.headers_BCH, inputs.deltas_BCD, inputs.past_BPD)
    names = ("tokens_BL", "headers_BCH", "deltas_BCD", "past_BPD")
    alone = RaceInputs(**{name: part[race : race + 1] for name, part in zip(names, parts, strict=True)})
    first = block.event_offset()[race]
    token = block.token[first : first + event_stops(block, votes)[race]]
    return alone, {"token": token, "weight": block.weight[race]}


def test_the_model_answers_while_a_race_is_open(block: RaceBlock, path: Path) -> None:
    predictor = ConsensusPredictor(path)
    assert predictor.fallback == ""
    inputs, events = one(block, 2, whole=False)
    found = predictor.predict(inputs, **events)
    model = Predictor().eval()
    model.reset_parameters(torch_stream(1, "weights"))
    with torch.no_grad():
        valid_BC, outcome_BK, delta_BD = model(inputs.tokens_BL, inputs.headers_BCH, inputs.deltas_BCD, inputs.past_BPD)
    assert (found.source, found.reason) == ("model", "")
    np.testing.assert_allclose(found.outcome_K, torch.softmax(outcome_BK[0], 0).numpy(), rtol=1e-3)
    present_C = inputs.headers_BCH[0, :, 0].numpy() == 1
    np.testing.assert_allclose(found.valid_C[present_C], torch.sigmoid(valid_BC[0]).numpy()[present_C], rtol=1e-3)
    assert not found.valid_C[~present_C].any()
    np.testing.assert_allclose(found.delta_D, delta_BD[0].numpy(), rtol=1e-3, atol=1e-7)


def test_the_rule_answers_once_it_decides(block: RaceBlock, path: Path) -> None:
    predictor = ConsensusPredictor(path)
    for race in range(block.num_races):
        inputs, events = one(block, race, whole=True)
        found = predictor.predict(inputs, **events)
        assert (found.source, found.reason) == ("rule", "the race is decided")
        assert found.outcome_K.tolist() == np.eye(NO_OUTCOME + 1)[block.outcome[race]].tolist()
        model = Predictor().eval()
        model.reset_parameters(torch_stream(1, "weights"))
        with torch.no_grad():
            valid_BC, _ = model.logits(inputs.tokens_BL, inputs.headers_BCH, inputs.deltas_BCD, inputs.past_BPD)
        present_C = inputs.headers_BCH[0, :, 0].numpy() == 1
        np.testing.assert_allclose(found.valid_C[present_C], torch.sigmoid(valid_BC[0]).numpy()[present_C], rtol=1e-3)
        if block.outcome[race] != NO_OUTCOME:
            np.testing.assert_array_equal(found.delta_D, inputs.deltas_BCD[0, block.outcome[race]].numpy())


@pytest.mark.parametrize("repeats", [600, 0])
def test_a_race_that_the_model_cannot_read_is_the_rules(block: RaceBlock, path: Path, repeats: int) -> None:
    inputs, events = one(block, 2, whole=False)
    first = events["token"][:1]
    vote = np.array([VOTE << 12], dtype=np.uint16)
    token = np.concatenate([first, np.repeat(vote, repeats)]) if repeats else first[:0]
    longer = replace(inputs, tokens_BL=torch.from_numpy(token.astype(np.int64))[None])
    found = ConsensusPredictor(path).predict(longer, token=token, weight=events["weight"])
    assert (found.source, found.reason) == ("rule", f"{len(token)} events, expected 1 to 512")
    assert found.outcome_K.argmax() == (0 if repeats else NO_OUTCOME)


def test_a_model_that_answers_nan_is_not_used(block: RaceBlock, tmp_path: Path) -> None:
    model = Predictor().eval()
    model.reset_parameters(torch_stream(1, "weights"))
    with torch.no_grad():
        model.valid.bias.fill_(float("nan"))
    write_onnx(model, tmp_path / "p.onnx")
    predictor = ConsensusPredictor(tmp_path / "p.onnx")
    assert "it answers with NaN, expected finite numbers" in predictor.fallback
    inputs, events = one(block, 2, whole=False)
    assert predictor.predict(inputs, **events).source == "rule"


def foreign(path: Path) -> None:
    """Write an ONNX model that is no predictor."""
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    other = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "g", [value], [other])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)


@pytest.mark.parametrize("damage", ["missing", "garbage", "truncated", "foreign"])
def test_without_a_sound_file_the_rule_answers_and_says_so(
    block: RaceBlock, path: Path, tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    bad = tmp_path / "p.onnx"
    if damage == "garbage":
        bad.write_bytes(b"not a model")
    elif damage == "truncated":
        bad.write_bytes(path.read_bytes()[:-5000])
    elif damage == "foreign":
        foreign(bad)
    with caplog.at_level(logging.WARNING):
        predictor = ConsensusPredictor(bad)
    assert predictor.fallback.startswith(f"{bad} cannot be used (")
    assert predictor.fallback.endswith("), expected a predictor in ONNX")
    assert caplog.messages == [f"{predictor.fallback}: the quorum rule answers in its place"]
    inputs, events = one(block, 2, whole=False)
    found = predictor.predict(inputs, **events)
    count = standing(events["token"], events["weight"])
    assert count.outcome is None
    assert (found.source, found.reason) == ("rule", predictor.fallback)
    assert found.outcome_K.argmax() == count.leader
    expected = [c < count.published and count.disputed[c] < 0.2 * count.total for c in range(4)]
    assert found.valid_C.tolist() == [float(value) for value in expected]
