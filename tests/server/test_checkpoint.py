import json
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from nerv_fl.enclave.aggregate import OptimizerState
from nerv_fl.errors import CheckpointError
from nerv_fl.io.atomic import write_atomically
from nerv_fl.rewards import Head
from nerv_fl.server import checkpoint
from nerv_fl.server.checkpoint import has_state, load_state, save_state, stored_rounds
from nerv_fl.strategy.server_state import FederationState

RNG = np.random.default_rng(1)
FIRST = FederationState(
    round_number=3,
    theta_P=RNG.normal(size=50).astype(np.float32),
    optimizer=OptimizerState(
        momentum_P=RNG.normal(size=50).astype(np.float32),
        second_P=RNG.normal(size=50).astype(np.float32) ** 2,
        num_rounds=2,
    ),
    move_P=RNG.normal(size=50).astype(np.float32),
    reputations=(0.3, 0.1 + 0.2, 1 / 3),
    participations=(1, 0, 3),
    last_heard=(3, 0, 3),
    carried_nano=93_634_496_919_917_864,
    balances_nano=(5, 0, 10**19),
    strikes=(0, 2, 0),
    ledger=Head(num_entries=7, hash="ab" * 32),
)
SECOND = replace(FIRST, round_number=4, theta_P=FIRST.theta_P + 1, carried_nano=0)


def equal(one: FederationState, other: FederationState) -> bool:
    """Return whether two states are the same to the last bit."""
    vectors = [
        (state.theta_P, state.move_P, state.optimizer.momentum_P, state.optimizer.second_P) for state in (one, other)
    ]
    names = [item.name for item in fields(FederationState) if item.name not in {"theta_P", "move_P", "optimizer"}]
    rest = [(state.optimizer.num_rounds, *(getattr(state, name) for name in names)) for state in (one, other)]
    return rest[0] == rest[1] and all(np.array_equal(a, b) for a, b in zip(*vectors, strict=True))


def test_what_is_loaded_is_what_was_saved_to_the_last_bit(tmp_path: Path) -> None:
    save_state(tmp_path, FIRST)

    assert equal(load_state(tmp_path), FIRST)
    assert load_state(tmp_path).model_hash == FIRST.model_hash


def test_the_last_two_states_are_kept_and_no_more(tmp_path: Path) -> None:
    third = replace(SECOND, round_number=5)
    for state in (FIRST, SECOND, third):
        save_state(tmp_path, state)

    assert equal(load_state(tmp_path), third)
    assert equal(load_state(tmp_path, 4), SECOND)
    assert stored_rounds(tmp_path) == [4, 5]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "latest",
        *(f"round-0000{number}.{ending}" for number in (4, 5) for ending in ("json", "safetensors")),
    ]


def test_a_folder_without_a_checkpoint(tmp_path: Path) -> None:
    assert not has_state(tmp_path)
    save_state(tmp_path / "new", FIRST)
    assert has_state(tmp_path / "new")


@pytest.mark.parametrize("writes_done", [0, 1, 2, 3])
def test_a_crash_at_any_write_leaves_the_old_state_or_the_new_one(
    writes_done: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_state(tmp_path, FIRST)
    left = [writes_done]

    def write_or_die(path: Path, data: bytes) -> None:
        if left[0] == 0:
            raise KeyboardInterrupt
        left[0] -= 1
        write_atomically(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_atomically", write_or_die)
        if writes_done < 3:
            with pytest.raises(KeyboardInterrupt):
                save_state(tmp_path, SECOND)
        else:
            save_state(tmp_path, SECOND)

    assert equal(load_state(tmp_path), SECOND if writes_done == 3 else FIRST)
    save_state(tmp_path, SECOND)
    assert equal(load_state(tmp_path), SECOND)
    assert len(list(tmp_path.iterdir())) == 5


@pytest.mark.parametrize("name", ["latest", "round-00003.json", "round-00003.safetensors"])
def test_a_file_cut_off_anywhere_is_an_error_and_never_another_state(name: str, tmp_path: Path) -> None:
    save_state(tmp_path, FIRST)
    whole = (tmp_path / name).read_bytes()
    for length in range(0, len(whole), max(1, len(whole) // 40)):
        (tmp_path / name).write_bytes(whole[:length])
        with pytest.raises(CheckpointError):
            load_state(tmp_path)


@pytest.mark.parametrize("name", ["latest", "round-00003.json", "round-00003.safetensors"])
def test_a_missing_file_is_named(name: str, tmp_path: Path) -> None:
    save_state(tmp_path, FIRST)
    (tmp_path / name).unlink()

    with pytest.raises(CheckpointError) as caught:
        load_state(tmp_path)

    assert str(caught.value) == (
        f"{tmp_path} holds no readable checkpoint: [Errno 2] No such file or directory: '{tmp_path / name}'"
        + ("" if name == "latest" else f", which {tmp_path / 'latest'} names")
    )


def test_any_flipped_byte_of_the_vectors_is_seen(tmp_path: Path) -> None:
    save_state(tmp_path, FIRST)
    path = tmp_path / "round-00003.safetensors"
    whole = path.read_bytes()
    for position in range(0, len(whole), 37):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        with pytest.raises(CheckpointError, match=r"round-00003\.safetensors has SHA-256 .*, expected "):
            load_state(tmp_path)


@pytest.mark.parametrize("field", ["round", "optimizer_rounds", "reputations", "participations", "carried_nano"])
def test_a_changed_fact_is_seen(field: str, tmp_path: Path) -> None:
    save_state(tmp_path, FIRST)
    path = tmp_path / "round-00003.json"
    facts = json.loads(path.read_text())
    facts[field] = None
    path.write_text(json.dumps(facts))

    with pytest.raises(CheckpointError, match=r"round-00003\.json does not have the content it was written with$"):
        load_state(tmp_path)


def test_a_checkpoint_from_before_the_ledger_is_refused(tmp_path: Path) -> None:
    save_state(tmp_path, FIRST)
    path = tmp_path / "round-00003.json"
    facts = json.loads(path.read_text())
    del facts["facts_sha256"], facts["ledger"]
    path.write_text(json.dumps(facts | {"facts_sha256": checkpoint._digest(facts)}))
    with pytest.raises(CheckpointError, match=r"round-00003\.json is of a version without a rewards ledger, expected"):
        load_state(tmp_path)
