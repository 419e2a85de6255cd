"""Reasons are one bounded, printable line, and those that differ in numbers only are counted together."""

import re
from pathlib import Path

import pytest

from nerv_fl.errors import ConfigError
from nerv_fl.failure_reasons import (
    MAX_REASON_LENGTH,
    MAX_REASONS,
    OTHER_REASONS,
    add_counts,
    count_reasons,
    end_of_traceback,
    kind_of,
    on_one_line,
    reason_of,
)

FRAMES = "".join(f'  File "/x/layer_{number}.py", line {number}, in call\n    return call()\n' for number in range(90))
BY_RAY = (
    "<class 'ray.exceptions.RayTaskError(ClientAppException)'>:<'\x1b[36mray::ClientAppActor.run()\x1b[39m (pid=8590)\n"
    "          ^^^^^^^^^^\n"
    f"{FRAMES}"
    "nerv_fl.errors.ConfigError: training.device is 'cuda', expected 'cpu'\n\n"
    "The above exception was the direct cause of the following exception:\n\n"
    f"{FRAMES}    raise ClientAppException(str(ex)) from ex\n"
    "flwr.clientapp.client_app.ClientAppException: \n"
    "Exception ClientAppException occurred. Message: training.device is 'cuda', expected 'cpu''>"
)


def raised(code: str, *, path: Path) -> Exception:
    """Return what some code raises that lies in a file of a user's own."""
    path.write_text(code)
    try:
        exec(compile(code, str(path), "exec"), {})
    except Exception as error:  # noqa: BLE001
        return error
    raise AssertionError


def test_our_own_error_speaks_for_itself() -> None:
    assert reason_of(ConfigError("seed is -1")) == "seed is -1"


def test_of_another_error_the_file_and_line_of_the_users_code_are_named(tmp_path: Path) -> None:
    error = raised("import json\ndef losses():\n    json.loads('{')\nlosses()\n", path=tmp_path / "fraud.py")

    assert re.fullmatch(r"JSONDecodeError: Expecting .* \(fraud\.py, line 3, in losses\)", reason_of(error))


def test_of_an_error_without_a_users_code_the_innermost_line_is_named() -> None:
    with pytest.raises(TypeError) as caught:
        on_one_line(7)  # type: ignore[arg-type]

    assert reason_of(caught.value).startswith("TypeError: 'int' object is not subscriptable (")


@pytest.mark.parametrize("text", ["a\nround 9: all is well\x1b[2J", "\x00" * 9, "x" * 10**6, "\u202egnisrever", ""])
def test_whatever_is_said_is_one_bounded_line_that_a_terminal_only_prints(text: str) -> None:
    for said in (on_one_line(text), end_of_traceback(text), reason_of(ValueError(text))):
        assert said.isprintable()
        assert len(said) <= MAX_REASON_LENGTH


def test_of_a_traceback_the_exception_line_is_kept_and_no_frame() -> None:
    assert end_of_traceback(BY_RAY) == "training.device is 'cuda', expected 'cpu'"
    plain = f"Traceback (most recent call last):\n{FRAMES}RuntimeError: mat1 and mat2\nhave shapes (3, 4)\n"
    assert end_of_traceback(plain) == "RuntimeError: mat1 and mat2 have shapes (3, 4)"


def test_of_what_is_no_traceback_the_beginning_is_kept() -> None:
    assert end_of_traceback("The actor died.\n\tpid: 7") == "The actor died. pid: 7"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("nodes/00003/spending.json is damaged", "nodes/00012/spending.json is damaged"),
        ("node 3 has a loss of 1.5e-07", "node 12 has a loss of 2.25e-11"),
        ("object at 0x7f3a2b", "object at 0x5e00ff"),
        ("actor e8ccf98cee3097ddf4b2 died", "actor 00c1d79aee3097ddf4b2 died"),
    ],
)
def test_numbers_do_not_make_another_reason(one: str, other: str) -> None:
    assert kind_of(one) == kind_of(other)
    assert count_reasons({12: other, 3: one, 40: other}) == {one: 3}


def test_words_make_another_reason() -> None:
    assert count_reasons({0: "no space", 1: "no data", 2: "no space"}) == {"no space": 2, "no data": 1}


def test_rare_reasons_are_counted_together() -> None:
    letters = [chr(ord("a") + index) for index in range(MAX_REASONS + 3)]

    counts = count_reasons(dict(enumerate(["common", *letters, "common"])))

    assert len(counts) == MAX_REASONS + 1
    assert (counts["common"], counts[OTHER_REASONS]) == (2, 4)
    assert sum(counts.values()) == len(letters) + 2


def test_counts_of_rounds_add_up() -> None:
    assert add_counts([{"node 3 is full": 2}, {}, {"node 4 is full": 3, "no data": 1}]) == {
        "node 3 is full": 5,
        "no data": 1,
    }
