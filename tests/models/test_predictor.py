import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from nerv_fl.models.consensus_inputs import RaceInputs, make_inputs
from nerv_fl.models.predictor import FACTS, Predictor, race_facts
from nerv_fl.quorum import DISPUTE, EVIDENCE, PAD_TOKEN, TIMEOUT, VOTE
from nerv_fl.rng import stream, torch_stream
from tests.models.races import draw_block, draw_inputs, draw_table, half_of_the_votes


@pytest.fixture(scope="module")
def inputs() -> RaceInputs:
    return draw_inputs()


@pytest.fixture(scope="module")
def model() -> Predictor:
    predictor = Predictor().eval()
    predictor.reset_parameters(torch_stream(1, "weights"))
    return predictor


def apply(model: Predictor, inputs: RaceInputs) -> tuple[Tensor, Tensor, Tensor]:
    with torch.no_grad():
        found: tuple[Tensor, Tensor, Tensor] = model(
            inputs.tokens_BL, inputs.headers_BCH, inputs.deltas_BCD, inputs.past_BPD
        )
    return found


def slow_facts(inputs: RaceInputs, race: int, candidate: int) -> list[float]:
    """Return what arithmetic knows of a candidate, event by event and number by number."""
    tokens = [int(token) for token in inputs.tokens_BL[race] if token != PAD_TOKEN]
    rounds = sum(token >> 12 == TIMEOUT for token in tokens)
    now = now_votes = before = disputed = disputes = convicted = 0.0
    ended = 0
    for token in tokens:
        kind, which, weight = token >> 12, token >> 10 & 3, ((token >> 6 & 15) + 0.5) / 16
        ended += kind == TIMEOUT
        if which != candidate:
            continue
        if kind == VOTE and ended == rounds:
            now, now_votes = now + weight, now_votes + 1
        before += weight * (kind == VOTE and ended == rounds - 1)
        disputed, disputes = disputed + weight * (kind == DISPUTE), disputes + (kind == DISPUTE)
        convicted += weight * (kind == EVIDENCE)
    header, deltas = inputs.headers_BCH[race, candidate].tolist(), inputs.deltas_BCD[race].double()
    length, energy = float(deltas[candidate].norm()), header[3]
    batch = [0.0, 0.0, 0.0]
    if header[0]:
        supply = float(deltas[candidate, -1])
        batch = [
            math.log((length + 1e-9) / (energy + 1e-9)),
            math.log(energy + 1e-9) / 10,
            max(-3.0, min(3.0, (supply - header[4]) / (energy + 1e-9))),
        ]

    def cosine(other: Tensor) -> float:
        size = length * float(other.norm())
        return float(deltas[candidate] @ other) / size if size else 0.0

    tallies = [now / 10, now_votes / 20, before / 10, disputed / 3, disputes / 5, rounds, convicted]
    header = [*header[:3], 10 * header[3], 10 * header[4]]
    past = inputs.past_BPD[race].double()
    return [*header, *tallies, *batch, *map(cosine, deltas), *map(cosine, past)]


def test_facts_are_what_counting_gives(inputs: RaceInputs) -> None:
    found = race_facts(inputs.tokens_BL, inputs.headers_BCH, inputs.deltas_BCD, inputs.past_BPD)
    assert found.shape == (inputs.num_races, 4, FACTS)
    for race in range(inputs.num_races):
        for candidate in range(4):
            expected = slow_facts(inputs, race, candidate)
            np.testing.assert_allclose(found[race, candidate].numpy(), expected, rtol=2e-4, atol=2e-5)


def test_padding_changes_nothing(model: Predictor, inputs: RaceInputs) -> None:
    longer = torch.nn.functional.pad(inputs.tokens_BL, (0, 9), value=PAD_TOKEN)
    for found, expected in zip(apply(model, replace(inputs, tokens_BL=longer)), apply(model, inputs), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_races_do_not_see_each_other(model: Predictor, inputs: RaceInputs) -> None:
    alone = RaceInputs(
        tokens_BL=inputs.tokens_BL[3:4],
        headers_BCH=inputs.headers_BCH[3:4],
        deltas_BCD=inputs.deltas_BCD[3:4],
        past_BPD=inputs.past_BPD[3:4],
    )
    for found, expected in zip(apply(model, alone), apply(model, inputs), strict=True):
        torch.testing.assert_close(found[0], expected[3], rtol=1e-4, atol=1e-5)


def test_a_rotation_of_v_rotates_the_next_delta_and_changes_no_answer(model: Predictor) -> None:
    block, table_AD = draw_block(), draw_table()
    turn_DD, _ = np.linalg.qr(stream(3, "rotation").standard_normal((12, 12)))
    votes = half_of_the_votes(block)
    plain, _ = make_inputs(block, table_AD, votes=votes)
    turned, _ = make_inputs(block, table_AD @ turn_DD, votes=votes)
    valid_BC, outcome_BK, delta_BD = apply(model, plain)
    found_BC, found_BK, found_BD = apply(model, turned)
    torch.testing.assert_close(found_BC, valid_BC, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(found_BK, outcome_BK, rtol=1e-3, atol=1e-4)
    expected = delta_BD[:, :12].double() @ torch.from_numpy(turn_DD)
    torch.testing.assert_close(found_BD[:, :12].double(), expected, rtol=1e-3, atol=1e-8)


def test_the_next_delta_points_at_the_candidates(model: Predictor, inputs: RaceInputs) -> None:
    _, outcome_BK, delta_BD = apply(model, inputs)
    share = torch.softmax(outcome_BK, dim=1)
    for race in range(3):
        expected = sum(share[race, c] * inputs.deltas_BCD[race, c] for c in range(4))
        torch.testing.assert_close(delta_BD[race], expected)


def test_every_weight_has_a_gradient(inputs: RaceInputs) -> None:
    model = Predictor()
    model.reset_parameters(torch_stream(1, "weights"))
    valid_BC, outcome_BK = model.logits(inputs.tokens_BL, inputs.headers_BCH, inputs.deltas_BCD, inputs.past_BPD)
    (valid_BC.square().sum() + torch.log_softmax(outcome_BK, dim=1)[:, 0].sum()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.any(), name


def test_the_same_stream_gives_the_same_weights() -> None:
    first, second = Predictor(), Predictor()
    for predictor in (first, second):
        predictor.reset_parameters(torch_stream(5, "weights"))
    for name, parameter in first.named_parameters():
        assert torch.equal(parameter, dict(second.named_parameters())[name]), name
