"""Whose code raised an error: the user's file and line are named, wherever the error surfaces."""

import importlib.util
import pickle
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from nerv_fl.enclave.parallel_evaluation import _call
from nerv_fl.errors import ConfigError, TaskError
from nerv_fl.tasks.user_code import user_error
from nerv_fl.validation import in_range

SOURCE = """
import json
import numpy as np
import torch

def raises():
    raise ValueError("first line\\n\\n  second line")

def raises_nothing_said():
    raise KeyError

def misuses_a_library():
    return np.zeros(3) @ np.zeros(4)

def misuses_torch():
    return torch.zeros(3) @ torch.zeros(4)

def misuses_the_standard_library():
    return json.loads("{")

def opens_a_missing_file():
    return open("missing")

def calls_back(function):
    return function()
"""


@pytest.fixture
def theirs(tmp_path: Path) -> ModuleType:
    """A module of a user's."""
    path = tmp_path / "theirs.py"
    path.write_text(SOURCE)
    spec = importlib.util.spec_from_file_location("theirs", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def raised_by(call: Callable[[], Any]) -> Exception:
    with pytest.raises(Exception) as caught:  # noqa: PT011 (whatever it is)
        call()
    return caught.value


@pytest.mark.parametrize(
    ("name", "line", "words"),
    [
        ("raises", 7, "ValueError: first line; second line"),
        ("raises_nothing_said", 10, "KeyError"),
        ("misuses_a_library", 13, "ValueError: matmul"),
        ("misuses_torch", 16, "RuntimeError: "),
        ("misuses_the_standard_library", 19, "JSONDecodeError: "),
        ("opens_a_missing_file", 22, "FileNotFoundError: "),
    ],
)
def test_the_users_file_line_and_function_are_named(theirs: ModuleType, name: str, line: int, words: str) -> None:
    found = user_error(raised_by(getattr(theirs, name)))

    assert isinstance(found, TaskError)
    assert str(found).startswith(f"{theirs.__file__}:{line}, in {name}, raised {words}")
    assert "\n" not in str(found)


def test_what_our_code_raises_is_ours_though_the_user_called_it(theirs: ModuleType) -> None:
    error = raised_by(lambda: theirs.calls_back(lambda: in_range("a", 2, low=0, high=1)))
    assert isinstance(error, ConfigError)
    assert user_error(error) is None


def test_a_worker_names_it_too_and_its_error_can_be_sent(theirs: ModuleType) -> None:
    error = raised_by(lambda: _call(theirs.raises))
    assert type(pickle.loads(pickle.dumps(error))) is TaskError
    assert str(error).startswith(f"{theirs.__file__}:7, in raises, raised ValueError: ")
