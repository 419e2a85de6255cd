"""One parser for recipes, overrides and Flower's run config; every wrong setting is named with what was expected."""

import math
import re
from collections.abc import Mapping
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nerv_fl.config import (
    Flat,
    GateConfig,
    RunConfig,
    as_table,
    build,
    flatten,
    parse_overrides,
    read_recipe,
    to_toml,
)
from nerv_fl.config.parse import Value
from nerv_fl.errors import ConfigError


def refused(flat: Mapping[str, Value], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        build(flat)


# --- What is read -----------------------------------------------------------------------------------------------------


def test_empty_recipe_is_the_default(tmp_path: Path) -> None:
    recipe = tmp_path / "empty.toml"
    recipe.write_text("")
    assert read_recipe(recipe) == build({}) == RunConfig()


def test_recipe_and_overrides(tmp_path: Path) -> None:
    recipe = tmp_path / "demo.toml"
    recipe.write_text('name = "demo"\nseed = 3\n\n[federation]\nnum_nodes = 80\n\n[gate]\nsteps = [1, 0.5]\n')
    config = read_recipe(recipe, overrides=["seed=9", "federation.cohort_size = 20", "server.optimizer=momentum"])
    assert (config.name, config.seed) == ("demo", 9)
    assert (config.federation.num_nodes, config.federation.cohort_size) == (80, 20)
    assert config.gate.steps == (1.0, 0.5)
    assert config.server.optimizer == "momentum"
    assert config.training == RunConfig().training


def test_whole_numbers_become_floats_where_floats_are_meant() -> None:
    learning_rate = build({"training.learning_rate": 2}).training.learning_rate
    assert learning_rate == 2
    assert isinstance(learning_rate, float)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("seed=8", 8),
        ("bootstrap.dp=true", True),
        ("training.learning_rate=1e-2", 0.01),
        ("server.optimizer=momentum", "momentum"),
        ("server.optimizer='momentum'", "momentum"),
        ('name="a=b"', "a=b"),
        ("gate.steps=[1, 2.5]", [1, 2.5]),
        ("privacy.max_epsilon=inf", math.inf),
        ("name=", ""),
    ],
)
def test_override_values_are_toml_or_words(text: str, value: Value) -> None:
    assert parse_overrides([text]) == {text.partition("=")[0]: value}


def test_the_last_override_wins() -> None:
    assert parse_overrides(["seed=1", "seed=2"]) == {"seed": 2}


@pytest.mark.parametrize("text", ["seed", "", "=7", " =7"])
def test_override_without_a_key_or_a_value_is_refused(text: str) -> None:
    message = f"override is {text!r}, expected key=value, such as seed=8"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        parse_overrides([text])


def test_settings_cannot_be_changed_afterwards() -> None:
    with pytest.raises(FrozenInstanceError):
        RunConfig().seed = 8  # type: ignore[misc]


# --- Files that are no recipes ----------------------------------------------------------------------------------------


def test_missing_recipe(tmp_path: Path) -> None:
    path = tmp_path / "none.toml"
    with pytest.raises(ConfigError, match=f"^{re.escape(f'recipe {path} cannot be read: No such file or directory')}$"):
        read_recipe(path)


@pytest.mark.parametrize("content", [b"seed = ", b"[gate", b"\xff\xfe"])
def test_recipe_that_is_not_toml(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=f"^{re.escape(f'recipe {path} is not TOML: ')}"):
        read_recipe(path)


# --- Unknown keys -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "suggestion"),
    [
        ("federation.num_node", " (did you mean 'federation.num_nodes'?)"),
        ("training.lerning_rate", " (did you mean 'training.learning_rate'?)"),
        ("sed", " (did you mean 'seed'?)"),
        ("privacy.sgima", " (did you mean 'privacy.sigma'?)"),
        ("zzzzzz", ""),
        ("seed.deeper", " (did you mean 'seed'?)"),
    ],
)
def test_unknown_key_names_the_nearest(key: str, suggestion: str) -> None:
    refused({key: 1}, f"setting {key!r} is unknown{suggestion}")


def test_every_known_key_with_a_letter_too_many_is_refused_and_found_again() -> None:
    for key in flatten(as_table(RunConfig())):
        refused({f"{key}~": 1}, f"setting '{key}~' is unknown (did you mean '{key}'?)")


def test_section_in_place_of_a_setting_is_unknown() -> None:
    with pytest.raises(ConfigError, match=r"^setting 'gate' is unknown"):
        build({"gate": 3})


# --- Wrong types ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("seed", "7", "int"),
        ("seed", 7.0, "int"),
        ("seed", True, "int"),
        ("name", 7, "str"),
        ("training.learning_rate", "fast", "float"),
        ("training.learning_rate", True, "float"),
        ("bootstrap.dp", 1, "bool"),
        ("bootstrap.dp", "true", "bool"),
        ("gate.steps", 1.0, "list of numbers"),
        ("gate.steps", "1", "list of numbers"),
    ],
)
def test_wrong_type_is_refused(key: str, value: Value, expected: str) -> None:
    refused({key: value}, f"{key} is {value!r}, expected a value of type {expected}")


def test_list_with_a_word_in_it_is_refused() -> None:
    refused({"gate.steps": [1.0, "two"]}, "gate.steps is 'two', expected a value of type float")  # type: ignore[list-item]


# --- Round trip -------------------------------------------------------------------------------------------------------


def test_default_goes_round() -> None:
    assert build(flatten(as_table(RunConfig()))) == RunConfig()


words = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=8)


@settings(max_examples=40)
@given(
    name=words.filter(lambda name: not name.startswith(".") and not set(name) & set("/\\")),
    seed=st.integers(0, 2**63 - 1),
    rate=st.floats(1e-300, 100),
    steps=st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=4),
    budget=st.just(math.inf) | st.floats(1e-3, 1e9),
    dp=st.booleans(),
)
def test_every_setting_survives_the_file(
    *,
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
    seed: int,
    rate: float,
    steps: list[float],
    budget: float,
    dp: bool,
) -> None:
    flat: Flat = {
        "name": name,
        "seed": seed,
        "training.learning_rate": rate,
        "gate.steps": steps,
        "privacy.max_epsilon": budget,
        "bootstrap.dp": dp,
    }
    config = build(flat)
    path = tmp_path_factory.mktemp("recipe") / "config.toml"
    path.write_text(to_toml(config), encoding="utf-8")
    assert read_recipe(path) == config


def test_gate_steps_stay_a_tuple() -> None:
    assert build({"gate.steps": [2, 1]}).gate == GateConfig(steps=(2.0, 1.0))


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_bytes(b"\xef\xbb\xbfseed = 9\n")
    assert read_recipe(path).seed == 9
