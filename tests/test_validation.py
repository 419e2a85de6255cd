"""Argument checks: the boundary itself, and messages that name the argument, its value and what was expected."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nerv_fl.errors import ConfigError
from nerv_fl.validation import in_range, nearest, one_of


@pytest.mark.parametrize("value", [2, 2.0, 3.5, 5])
def test_both_ends_belong_to_the_range(value: float) -> None:
    in_range("x", value, low=2, high=5)


@pytest.mark.parametrize("value", [1.999, 5.001, -math.inf, math.inf, math.nan])
def test_outside_is_refused(value: float) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(f'gate.x is {value}, expected a number in [2, 5]')}$"):
        in_range("gate.x", value, low=2, high=5)


def test_open_lower_end_is_refused() -> None:
    in_range("x", 1e-300, low=0, high=1, open_low=True)
    with pytest.raises(ConfigError, match=r"^x is 0, expected a number in \(0, 1\]$"):
        in_range("x", 0, low=0, high=1, open_low=True)


def test_infinity_may_be_the_upper_end() -> None:
    in_range("x", math.inf, low=0, high=math.inf)
    with pytest.raises(ConfigError, match=r"^x is nan, expected a number in \[0, inf\]$"):
        in_range("x", math.nan, low=0, high=math.inf)


@given(value=st.floats(), low=st.floats(-10, 10), high=st.floats(-10, 10), open_low=st.booleans())
def test_in_range_equals_its_definition(*, value: float, low: float, high: float, open_low: bool) -> None:
    allowed = (low < value or (low == value and not open_low)) and value <= high
    if allowed:
        in_range("x", value, low=low, high=high, open_low=open_low)
    else:
        with pytest.raises(ConfigError):
            in_range("x", value, low=low, high=high, open_low=open_low)


def test_choice_passes_and_another_word_is_refused_with_the_nearest() -> None:
    one_of("server.optimizer", "adam", choices=("momentum", "adam"))
    message = "server.optimizer is 'adma', expected one of: adam, momentum (did you mean 'adam'?)"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        one_of("server.optimizer", "adma", choices=("momentum", "adam"))


def test_far_off_word_gets_no_suggestion() -> None:
    with pytest.raises(ConfigError, match=r"^x is 'zzzzzz', expected one of: adam, momentum$"):
        one_of("x", "zzzzzz", choices=("momentum", "adam"))
    assert nearest("zzzzzz", choices=["adam"]) == ""


def test_nearest_of_several() -> None:
    assert nearest("gate.step", choices=["gate.steps", "data.steps", "seed"]) == " (did you mean 'gate.steps'?)"


def test_config_errors_are_value_errors() -> None:
    with pytest.raises(ValueError, match="x is 7"):
        in_range("x", 7, low=0, high=1)
