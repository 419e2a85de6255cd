"""The learning rate of each step."""

import math

import pytest

from nerv_fl.bootstrap.schedule import cosine
from tests.bootstrap.tiny import SETTINGS


def test_schedule_warms_up_and_falls_as_a_cosine() -> None:
    rates = [cosine(step, SETTINGS) for step in range(41)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[5] == 1
    assert rates[22] == pytest.approx(0.5 * (1 + math.cos(math.pi * 17 / 35)))
    assert rates[40] == pytest.approx(0)
