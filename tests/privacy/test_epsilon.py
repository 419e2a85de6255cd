"""An epsilon is an upper bound: its text never says less, and no other code than `format_epsilon` writes one."""

import ast
import math
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nerv_fl.privacy.epsilon import INFINITE, format_epsilon
from tests.test_project import SHIPPED, python_files, relative

ROUNDING = ("round", "format", "short", "fixed", "tiny", "signed", "percent", "exponential")
"""Functions that round a number: the language's and the report's."""


@given(st.floats(min_value=0.0, max_value=1e6), st.integers(min_value=0, max_value=6))
def test_the_text_is_never_below_the_epsilon_and_less_than_a_step_above(epsilon: float, digits: int) -> None:
    text = format_epsilon(epsilon, digits=digits)

    assert epsilon <= float(text) < epsilon + 1.001 * 10**-digits
    assert len(text.partition(".")[2]) == digits


@pytest.mark.parametrize(
    ("epsilon", "text"),
    [(5.561, "5.57"), (5.57, "5.57"), (5.5, "5.50"), (2.005, "2.01"), (0.0, "0.00"), (1e-12, "0.01"), (9.991, "10.00")],
)
def test_it_is_rounded_up_and_only_where_it_must(epsilon: float, text: str) -> None:
    assert format_epsilon(epsilon) == text


@pytest.mark.parametrize("epsilon", [None, math.inf])
def test_an_infinite_epsilon_is_no_number(epsilon: float | None) -> None:
    assert format_epsilon(epsilon) == INFINITE
    assert not re.search(r"\d", INFINITE)


@pytest.mark.parametrize("epsilon", [math.nan, -0.1])
def test_what_is_no_epsilon_is_refused(epsilon: float) -> None:
    with pytest.raises(ValueError, match=r"^epsilon is (nan|-0.1), expected a number of at least 0$"):
        format_epsilon(epsilon)


def rounded_epsilons(source: str) -> list[str]:
    """Return each expression that rounds something named epsilon by other means than `format_epsilon`."""
    found = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.FormattedValue(value=value, format_spec=ast.JoinedStr() as spec):
                rounds = bool(re.search(r"\.\d|[efgEFGn%]$", "".join(re.findall(r"'(.*?)'", ast.dump(spec)))))
                texts = [ast.unparse(value)]
            case ast.Call(func=func, args=arguments):
                rounds = ast.unparse(func).rpartition(".")[2] in ROUNDING
                texts = [ast.unparse(argument) for argument in arguments]
            case ast.BinOp(left=ast.Constant(value=str(template)), op=ast.Mod(), right=right):
                rounds, texts = bool(re.search(r"%[^%]*[efgd]", template)), [ast.unparse(right)]
            case _:
                continue
        if rounds and any("epsilon" in text.lower() and "format_epsilon" not in text for text in texts):
            found.append(ast.unparse(node))
    return found


def test_only_one_function_rounds_an_epsilon() -> None:
    found = {relative(path): names for path in python_files(*SHIPPED, "benchmarks") if (names := rounded(path))}

    assert found == {}


def rounded(path: Path) -> list[str]:
    return rounded_epsilons(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "source",
    [
        'f"{record.epsilon.max:.2f}"',
        'f"{epsilon:g}"',
        "f\"{facts['epsilon']:.3g}\"",
        "round(epsilon_of(mechanism, 3, delta=1e-5), 2)",
        "short(max_epsilon, digits=2)",
        'format(epsilon, ".2f")',
        '"%.2f" % epsilon',
        '"{:.2f}".format(epsilon)',
    ],
)
def test_another_way_to_round_one_is_found(source: str) -> None:
    assert rounded_epsilons(source)


@pytest.mark.parametrize("source", ['f"{format_epsilon(epsilon):>4}"', 'f"{epsilon}"', 'f"{epsilon_text:>6}"'])
def test_what_rounds_nothing_passes(source: str) -> None:
    assert rounded_epsilons(source) == []
