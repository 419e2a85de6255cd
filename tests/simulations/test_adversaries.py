"""Every attack against a real round: what it sends, what the enclave makes of it, and what it earns."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nerv_fl.client.host import HostSettings, NodeHost
from nerv_fl.config import AdversariesConfig, Flat, RunConfig, as_table, build, flatten
from nerv_fl.crypto import Context, decode_update, open_envelope
from nerv_fl.errors import ConfigError
from nerv_fl.types import Vector
from simulations.adversaries import ATTACKS, AdversarialTraining, assign_roles
from tests.client.conftest import Field
from tests.federation.tiny_run import change_settings, copy_run, num_parameters

GROUP = 4


def federation(kind: str, *, fraction: float = 0.5, num_nodes: int = 8) -> RunConfig:
    """Return settings in which half of the nodes play one attack."""
    return build(
        {
            "federation.num_nodes": num_nodes,
            "federation.cohort_size": num_nodes,
            f"adversaries.{kind}": fraction,
            "adversaries.group_size": GROUP,
        }
    )


@pytest.fixture
def field(tmp_path: Path) -> Field:
    """The tiny federation, all of it honest."""
    return Field(copy_run(tmp_path / "honest"))


@pytest.fixture
def field_of(tmp_path: Path) -> Callable[[str], Field]:
    """Return a function that prepares the tiny federation with half of its nodes playing one attack."""

    def make(kind: str) -> Field:
        settings: Flat = {f"adversaries.{kind}": 0.5, "adversaries.group_size": GROUP}
        return Field(change_settings(copy_run(tmp_path / kind), settings))

    return make


def sent(field: Field, numbers: list[int], **changes: Any) -> dict[int, Vector]:
    """Return what nodes send in round 1, opened."""
    order = field.order(**changes)
    host = NodeHost(field.settings, constants={"movement_floor": 0.01})
    envelopes, _ = host.answer(order, numbers)
    roster = field.folder.read_roster()
    return {
        number: decode_update(
            open_envelope(
                envelope,
                expected=Context(run=order.run, round=order.round_number, node=number, base_hash=order.base_hash),
                roster=roster,
                opening_key=field.identity.opening_key,
            ),
            num_parameters=num_parameters(),
        )
        for number, envelope in envelopes.items()
    }


def cosine(one_P: Vector, other_P: Vector) -> float:
    return float(one_P @ other_P / np.linalg.norm(one_P) / np.linalg.norm(other_P))


# --- Who plays what ---------------------------------------------------------------------------------------------------


def test_roles_are_a_function_of_the_settings_alone() -> None:
    roles = assign_roles(federation("sign_flip"))

    assert len(roles) == 4
    assert roles == assign_roles(replace(federation("sign_flip"), name="another"))
    assert roles != assign_roles(replace(federation("sign_flip"), seed=8))


def test_groups_share_an_operator_and_no_node_plays_twice() -> None:
    config = replace(
        federation("sybil", num_nodes=20),
        adversaries=AdversariesConfig(sybil=0.4, rejoiner=0.2, free_rider=0.4, group_size=GROUP),
    )

    roles = assign_roles(config)

    assert len(roles) == 20
    assert sorted(len(role.members) for role in roles.values()) == [1] * 8 + [2] * 4 + [GROUP] * 8
    assert all(node in role.members for node, role in roles.items())


def test_every_attack_can_be_asked_for() -> None:
    assert set(ATTACKS) == set(AdversariesConfig().fractions())


def test_a_fraction_too_small_for_a_group_is_named() -> None:
    with pytest.raises(ConfigError, match=r"adversaries\.sybil is 0\.1 of 8 nodes, expected 0 or at least 4 nodes"):
        assign_roles(federation("sybil", fraction=0.1))


def test_more_adversaries_than_nodes_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"fractions in adversaries sum to 1\.2, expected at most 1"):
        AdversariesConfig(sybil=0.6, scaled=0.6)


@pytest.mark.parametrize("settings", [{"privacy.sigma": 0.7}, {"privacy.mechanism": "none"}, {}])
def test_no_deployed_node_leaves_the_protocols_mechanism(field: Field, settings: Flat) -> None:
    config = build(flatten(as_table(field.settings.config)) | {"privacy.protocol": False} | settings)

    assert replace(field.settings, config=config).simulated
    with pytest.raises(ConfigError, match=r"^privacy\.protocol is False, expected True outside a simulation"):
        replace(field.settings, config=config, simulated=False)


def test_no_deployed_node_cheats(field: Field) -> None:
    settings: HostSettings = field.settings
    with pytest.raises(ConfigError, match="adversaries are set, expected none outside a simulation"):
        replace(settings, config=federation("scaled"), simulated=False)


# --- What they send ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", sorted(ATTACKS))
def test_an_attack_is_the_same_in_any_process_and_honest_nodes_are_left_alone(
    field_of: Callable[[str], Field], field: Field, kind: str
) -> None:
    attacked = field_of(kind)
    roles = assign_roles(attacked.folder.config)
    honest = [number for number in range(8) if number not in roles]

    together = sent(attacked, list(range(8)))
    alone: dict[int, Vector] = {}
    for number in range(8):
        (attacked.folder.node(number) / "sent.envelope").unlink(missing_ok=True)
        alone |= sent(attacked, [number])

    undisturbed = sent(field, honest)
    assert together.keys() == alone.keys()
    assert all(np.array_equal(together[number], alone[number]) for number in alone)
    assert all(np.array_equal(together[number], undisturbed[number]) for number in honest)


def test_sybils_are_copies_and_noisy_copies_are_strangers(field_of: Callable[[str], Field]) -> None:
    sybils, copies = field_of("sybil"), field_of("noisy_copy")
    members = next(iter(assign_roles(sybils.folder.config).values())).members
    first, second = sent(sybils, list(members[:2])).values()
    assert np.array_equal(first, second)

    members = next(iter(assign_roles(copies.folder.config).values())).members
    first, second = sent(copies, list(members[:2])).values()
    assert abs(cosine(first, second)) < 0.1


def test_a_replayer_needs_an_earlier_encoder_and_survives_being_asked_twice(field_of: Callable[[str], Field]) -> None:
    field = field_of("replayer")
    number = min(assign_roles(field.folder.config))
    first = field.order()
    moved = field.moved(first, round_number=2)

    sent(field, [number])
    replayed = sent(field, [number], theta_P=moved.theta_P, base_hash=moved.base_hash, round_number=2)[number]
    (field.folder.node(number) / "sent.envelope").unlink()
    again = sent(field, [number], theta_P=moved.theta_P, base_hash=moved.base_hash, round_number=2)[number]

    assert cosine(replayed, (moved.theta_P - first.theta_P).numpy()) > 0.3
    assert np.array_equal(replayed, again)


def test_a_splitter_registers_a_part_of_one_weight_each(tmp_path: Path) -> None:
    config = federation("splitter")
    parts = [role.weight_parts for role in assign_roles(config).values()]

    assert parts == [GROUP] * 4
    assert AdversarialTraining(config) == AdversarialTraining(federation("splitter"))
