import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from nerv_fl.config import RunConfig
from nerv_fl.crypto import SigningKey
from nerv_fl.errors import CheckpointError, ConfigError
from nerv_fl.records import RewardRow, RoundRecord, read_rewards
from nerv_fl.server.run_folder import RunFolder
from tests.server.test_tracking import RECORD

ROW = RewardRow(round=1, node=3, value=0.25, se=0.1, ci_low=0.05, ci_high=0.45, reputation=0.3, payout_nano=17, flag="")


def records(*numbers: int) -> list[RoundRecord]:
    return [replace(RECORD, round=number) for number in numbers]


def rows(*numbers: int) -> list[RewardRow]:
    return [replace(ROW, round=number, node=node) for number in numbers for node in (3, 5)]


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path)


def filled(folder: RunFolder, numbers: Sequence[int] = (0, 1, 2, 3)) -> RunFolder:
    """Append rounds as a run does: none is paid for in round 0."""
    for record in records(*numbers):
        folder.append(
            record, rows(record.round) if record.round else [], entries=[], certificate=f"certificate {record.round}"
        )
    return folder


def test_what_is_appended_is_read_back(folder: RunFolder) -> None:
    filled(folder)

    assert folder.rounds() == records(0, 1, 2, 3)
    assert read_rewards(folder.rewards_path) == rows(1, 2, 3)
    assert folder.certificate_path(2).read_text() == "certificate 2"


def test_the_table_has_one_header(folder: RunFolder) -> None:
    filled(folder)

    lines = folder.rewards_path.read_text().splitlines()
    assert [line for line in lines if line.startswith("round,")] == lines[:1]


def test_without_a_certificate_none_is_written(folder: RunFolder) -> None:
    folder.append(RECORD, [], entries=[], certificate=None)

    assert not folder.certificate_path(3).exists()
    assert read_rewards(folder.rewards_path) == []


@pytest.mark.parametrize(("last", "left"), [(-1, ()), (0, (0,)), (2, (0, 1, 2)), (3, (0, 1, 2, 3))])
def test_rounds_after_the_checkpoint_are_cut_off(last: int, left: tuple[int, ...], *, folder: RunFolder) -> None:
    filled(folder).cut_after(last)

    assert folder.rounds() == records(*left)
    assert read_rewards(folder.rewards_path) == rows(*(number for number in left if number))


def test_half_a_line_is_cut_off_wherever_it_ends(folder: RunFolder) -> None:
    filled(folder)
    whole = {path: path.read_bytes() for path in (folder.rounds_path, folder.rewards_path)}
    third = {path: len(data) - data.rindex(b"\n", 0, -1) - 1 for path, data in whole.items()}
    for path, data in whole.items():
        for cut in range(1, third[path], 37):
            path.write_bytes(data[:-cut])
            folder.cut_after(2)
            assert folder.rounds() == records(0, 1, 2)
            assert read_rewards(folder.rewards_path) == rows(1, 2)
            for other, content in whole.items():
                other.write_bytes(content)


def test_after_the_cut_a_round_can_be_appended_again(folder: RunFolder) -> None:
    filled(folder)
    whole = [path.read_bytes() for path in (folder.rounds_path, folder.rewards_path)]
    folder.cut_after(1)

    filled(folder, (2, 3))

    assert [path.read_bytes() for path in (folder.rounds_path, folder.rewards_path)] == whole


def test_cutting_an_empty_folder_does_nothing(folder: RunFolder) -> None:
    folder.cut_after(-1)

    assert folder.rounds() == []
    assert list(folder.root.iterdir()) == []


def test_an_empty_table_after_a_crash_at_its_birth(folder: RunFolder) -> None:
    """The file was created and not yet written, or holds half a header."""
    for content in ("", "round,no"):
        folder.rewards_path.write_text(content)
        folder.cut_after(-1)
        assert read_rewards(folder.rewards_path) == []


def test_manifest_facts_are_added_and_replaced(folder: RunFolder) -> None:
    assert folder.read_manifest() == {}

    folder.update_manifest(run="demo", seed=7)
    folder.update_manifest(seed=8)

    assert folder.read_manifest() == {"run": "demo", "seed": 8}


def test_manifest_holds_no_nan(folder: RunFolder) -> None:
    folder.update_manifest(run="demo")
    with pytest.raises(ValueError, match="not JSON compliant"):
        folder.update_manifest(loss=float("nan"))
    assert folder.read_manifest() == {"run": "demo"}


def test_damaged_manifest(folder: RunFolder) -> None:
    folder.manifest_path.write_text('{"run": ')

    with pytest.raises(CheckpointError, match=rf"^{folder.manifest_path} is not JSON: "):
        folder.read_manifest()


def test_settings_are_written_whole(folder: RunFolder) -> None:
    config = RunConfig(name="demo", seed=9)

    RunFolder(folder.root / "new").write_config(config)

    assert RunFolder(folder.root / "new").config == config


def test_settings_edited_by_hand_are_checked(folder: RunFolder) -> None:
    folder.config_path.write_text("sed = 7\n")

    with pytest.raises(ConfigError, match=r"^setting 'sed' is unknown \(did you mean 'seed'\?\)$"):
        _ = folder.config


def test_roster_is_read_back(folder: RunFolder) -> None:
    roster = {node: SigningKey(f"node {node}".encode().ljust(32)).verify_key for node in (10, 2)}

    folder.write_roster(roster, weights={2: 128.0, 10: 64.0})

    assert folder.read_roster() == roster
    assert folder.read_weights() == {2: 128.0, 10: 64.0}
    assert list(json.loads((folder.root / "roster.json").read_text())) == ["2", "10"]


def test_where_everything_is(folder: RunFolder) -> None:
    names = {
        folder.config_path: "config.toml",
        folder.manifest_path: "manifest.json",
        folder.rounds_path: "rounds.jsonl",
        folder.rewards_path: "rewards.csv",
        folder.certificate_path(3): "certificates/round-3.json",
        folder.checkpoint: "checkpoint",
        folder.data("nodes"): "data/nodes.h5",
        folder.node(7): "nodes/00007",
    }
    assert {str(path.relative_to(folder.root)) for path in names} == set(names.values())


def test_certificates_of_rounds_that_do_not_count_are_removed(folder: RunFolder) -> None:
    filled(folder)

    folder.cut_after(2)

    assert folder.certificate_path(2).exists()
    assert not folder.certificate_path(3).exists()
