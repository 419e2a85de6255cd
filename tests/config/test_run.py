"""Settings check themselves: each alone, and against the others."""

import math
import re
from collections.abc import Mapping

import pytest

from nerv_fl.config import Flat, PrivacyConfig, RunConfig, build
from nerv_fl.config.parse import Value
from nerv_fl.errors import ConfigError


def refused(flat: Mapping[str, Value], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        build(flat)


# --- Out of range -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("seed", -1, "[0, 9223372036854775807]"),
        ("data.steps", 0, "[1, 1000000]"),
        ("data.max_transactions", 257, "[1, 256]"),
        ("data.heldout_chains", 1, "[2, 1000000000]"),
        ("bootstrap.learning_rate", 0.0, "(0, 10]"),
        ("bootstrap.learning_rate", math.nan, "(0, 10]"),
        ("federation.min_heard_fraction", 1.1, "[0, 1]"),
        ("training.expected_batch", 0, "[1, 1000000]"),
        ("privacy.delta", 0.0, "(0, 0.5]"),
        ("privacy.max_epsilon", 0.0, "(0, inf]"),
        ("server.beta1", 1.0, "[0, 0.9999]"),
        ("server.trim_fraction", 0.5, "[0, 0.49]"),
        ("gate.confidence", 1.0, "[0.5, 0.9999]"),
        ("gate.min_rank_ratio", 1.5, "[0, 1]"),
        ("valuation.exact_max_nodes", 13, "[1, 12]"),
        ("rewards.fault_penalty", -0.1, "[0, 1]"),
        ("enclave.clone_cosine", 0.0, "(0, 1]"),
        ("enclave.chunk", 0, "[1, 100000]"),
        ("simulation.actors", 0, "[1, 4096]"),
    ],
)
def test_out_of_range_is_refused(key: str, value: Value, expected: str) -> None:
    refused({key: value}, f"{key} is {value}, expected a number in {expected}")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model.preset", "smal", "expected one of: base, quickstart, small, tee, whitepaper (did you mean 'small'?)"),
        ("model.readout", "median", "expected one of: balance, mean (did you mean 'mean'?)"),
        ("server.optimizer", "adamw", "expected one of: adam, momentum (did you mean 'adam'?)"),
        ("privacy.unit", "account", "expected one of: chain, record"),
        ("training.dp_engine", "opacs", "expected one of: layers, opacus (did you mean 'opacus'?)"),
        ("training.device", "gpu", "expected one of: cpu, cuda (did you mean 'cpu'?)"),
        ("enclave.place", "proces", "expected one of: here, process (did you mean 'process'?)"),
        ("training.codec", "int", "expected one of: bf16, fp32, int8 (did you mean 'int8'?)"),
    ],
)
def test_unknown_choice_is_refused(key: str, value: str, message: str) -> None:
    refused({key: value}, f"{key} is {value!r}, {message}")


@pytest.mark.parametrize("steps", [[], [1.0, 0.0], [1.0, -0.5], [math.nan], [math.inf]])
def test_steps_of_the_search_are_positive(steps: list[float]) -> None:
    refused({"gate.steps": steps}, f"gate.steps is {steps}, expected positive numbers, 0 being tried anyway")


# --- Unsound combinations ---------------------------------------------------------------------------------------------


FIXED = "the protocol fixes it; a simulation may differ with privacy.protocol=false"


@pytest.mark.parametrize("sigma", [0.4999, 0.51, 0.0, 1.0, math.inf])
def test_protocol_fixes_the_noise(sigma: float) -> None:
    refused({"privacy.sigma": sigma}, f"privacy.sigma is {sigma}, expected 0.5: {FIXED}")


def test_noise_that_is_not_a_number_is_refused_too() -> None:
    refused({"privacy.sigma": math.nan}, f"privacy.sigma is nan, expected 0.5: {FIXED}")


@pytest.mark.parametrize("clip", [0.5, 2.0])
def test_protocol_fixes_the_clip(clip: float) -> None:
    refused({"privacy.clip": clip}, f"privacy.clip is {clip}, expected 1.0: {FIXED}")
    with pytest.raises(ConfigError):
        PrivacyConfig(clip=clip)


def test_protocol_fixes_the_mechanism() -> None:
    refused({"privacy.mechanism": "none"}, f"privacy.mechanism is 'none', expected 'gaussian': {FIXED}")


def test_a_simulation_may_have_another_mechanism_and_says_how_it_differs() -> None:
    deviations = {
        build({"privacy.protocol": False, **settings}).privacy.deviation
        for settings in ({"privacy.sigma": 0.7}, {"privacy.clip": 2.0}, {"privacy.mechanism": "none"})
    }
    assert deviations == {
        "not the protocol's mechanism (sigma 0.7, clip 1.0)",
        "not the protocol's mechanism (sigma 0.5, clip 2.0)",
        "no privacy mechanism: epsilon is infinite",
    }
    assert build({"privacy.protocol": False}).privacy.deviation == ""


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"privacy.sigma": 0.0}, "privacy.sigma is 0.0, expected a number in [0.1, 1000.0]"),
        ({"privacy.sigma": math.nan}, "privacy.sigma is nan, expected a number in [0.1, 1000.0]"),
        ({"privacy.clip": 0.0}, "privacy.clip is 0.0, expected a number in (0, 1000000.0]"),
        ({"privacy.mechanism": "laplace"}, "privacy.mechanism is 'laplace', expected one of: gaussian, none"),
        (
            {"privacy.mechanism": "none", "privacy.sigma": 0.7},
            "privacy.sigma is 0.7, expected 0.5: privacy.mechanism is 'none', which neither clips nor adds noise",
        ),
        (
            {"privacy.mechanism": "none", "bootstrap.dp": True},
            "bootstrap.dp is True, expected False with privacy.mechanism 'none'",
        ),
        (
            {"privacy.mechanism": "none", "adversaries.noise_skipper": 0.5},
            "adversaries.noise_skipper is 0.5, expected 0 with privacy.mechanism 'none': "
            "the attack depends on the noise of an honest update",
        ),
    ],
)
def test_what_makes_no_sense_in_another_mechanism_is_refused(settings: Flat, message: str) -> None:
    refused({"privacy.protocol": False} | settings, message)


@pytest.mark.parametrize(
    ("flat", "message"),
    [
        (
            {"data.samples_per_node": 100, "data.steps": 8},
            "data.samples_per_node is 100, expected a multiple of data.steps = 8",
        ),
        (
            {"data.samples_per_node": 32, "training.expected_batch": 64},
            "training.expected_batch is 64, expected a number in [1, 32]",
        ),
        (
            {"federation.num_nodes": 10, "federation.cohort_size": 11},
            "federation.cohort_size is 11, expected a number in [1, 10]",
        ),
        (
            {"federation.cohort_size": 5, "federation.min_updates": 6},
            "federation.min_updates is 6, expected a number in [1, 5]",
        ),
        (
            {"data.search_chains": 100, "gate.search_samples": 101},
            "gate.search_samples is 101, expected a number in [8, 100]",
        ),
        (
            {"data.certify_chains": 511},
            "gate.certify_samples is 512, expected a number in [8, 511]",
        ),
        (
            {"gate.search_samples": 128},
            "valuation.gradient_samples is 256, expected a number in [8, 128]",
        ),
        (
            {"valuation.gradient_samples": 32, "valuation.audit_samples": 64},
            "valuation.audit_samples is 64, expected a number in [8, 32]",
        ),
        ({"gate.min_norm": 1.5, "gate.max_norm": 1.0}, "gate.min_norm is 1.5, expected a number in [0, 1.0]"),
        (
            {"valuation.method": "exact"},
            "federation.cohort_size is 50, expected at most valuation.exact_max_nodes = 12 with valuation.method "
            "'exact'",
        ),
        (
            {"server.aggregation": "median", "valuation.method": "surrogate"},
            "valuation.method is 'surrogate' and valuation.game 'fixed', expected another method and 'fixed' with "
            "server.aggregation 'median': neither holds for a rule that is not linear",
        ),
        (
            {"valuation.game": "mean", "valuation.method": "surrogate"},
            "valuation.method is 'surrogate', expected another with valuation.game 'mean'",
        ),
        (
            {"server.aggregation": "median", "valuation.evaluations": 51},
            "valuation.evaluations is 51, expected at least 52 with valuation.method 'auto', server.aggregation "
            "'median' and 50 nodes a round",
        ),
        (
            {"valuation.method": "permutation"},
            "valuation.evaluations is 128, expected at least 200 with valuation.method 'permutation', "
            "server.aggregation 'mean' and 50 nodes a round",
        ),
        (
            {"server.mean_noise_std": 0.5},
            "server.aggregation is 'mean', expected 'clipped_mean' where server.mean_noise_std is 0.5: without a clip "
            "no noise bounds what one node changes",
        ),
        ({"name": "Zürich"}, "name is 'Zürich', expected 1 to 64 printable ASCII characters"),
        ({"name": ""}, "name is '', expected 1 to 64 printable ASCII characters"),
    ],
)
def test_unsound_combination_is_refused(flat: Flat, message: str) -> None:
    refused(flat, message)


def test_sampling_rate_is_the_expected_batch_over_the_data() -> None:
    assert build({"data.samples_per_node": 640, "training.expected_batch": 32}).sampling_rate == 0.05


@pytest.mark.parametrize("name", ["../x", "a/b", "/x", "..", ".", ".hidden", "a\\b"])
def test_a_name_is_that_of_one_folder(name: str) -> None:
    expected = f"name is {name!r}, expected a folder name without / and \\ that begins with no dot"
    with pytest.raises(ConfigError, match=f"^{re.escape(expected)}$"):
        RunConfig(name=name)
