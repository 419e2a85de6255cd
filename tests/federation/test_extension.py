"""A run that is extended equals one that was as long from the start, and its final pool stays opened once."""

from pathlib import Path
from typing import Any

import pytest

from nerv_fl.errors import ConfigError
from nerv_fl.report import write_report
from nerv_fl.server.monitor import Monitor
from nerv_fl.server.run_folder import RunFolder
from simulations.prepare import claimed_folder, open_folder
from tests.federation.conftest import NewRun
from tests.federation.leavings import leavings
from tests.federation.tiny_run import run_rounds, tiny_config

FIRST, WHOLE = 1, 3


def same(folder: RunFolder) -> dict[str, Any]:
    """Return all that must be equal: the final pool's result belongs to the round in which it was opened."""
    found = leavings(folder)
    del found["manifest.json"]["final"]
    return found


def extend(folder: RunFolder, num_rounds: int, **overrides: object) -> RunFolder:
    config = tiny_config({"federation.num_rounds": num_rounds} | overrides)
    with claimed_folder(folder.root, config, resume=True) as opened:
        run_rounds(opened)
    return opened


@pytest.fixture
def short(new_run: NewRun) -> RunFolder:
    """A finished run of one round."""
    folder = new_run(**{"federation.num_rounds": FIRST})
    run_rounds(folder)
    return folder


def test_an_extended_run_equals_a_longer_one(
    short: RunFolder, undisturbed: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    final = short.read_manifest()["final"]

    def opened_again(*_arguments: object) -> None:
        raise AssertionError("the final pool was opened twice")

    monkeypatch.setattr(Monitor, "final", opened_again)
    extended = extend(short, WHOLE)

    assert same(extended) == same(undisturbed)
    manifest = extended.read_manifest()
    assert manifest["final"] == final
    assert manifest["final_round"] == FIRST
    assert manifest["extensions"] == [{"from": FIRST, "to": WHOLE, "after_round": FIRST}]
    assert extended.config.federation.num_rounds == WHOLE
    page = write_report(extended.root).read_text()
    assert f"This is the model after round {FIRST}, when the pool was opened." in page


def test_a_run_that_was_not_extended_says_nothing_of_it(undisturbed: RunFolder) -> None:
    manifest = undisturbed.read_manifest()

    assert manifest["final_round"] == WHOLE
    assert "extensions" not in manifest
    assert "when the pool was opened" not in (undisturbed.root / "report.html").read_text()


def test_fewer_rounds_than_are_done_are_refused(undisturbed: RunFolder) -> None:
    with pytest.raises(ConfigError) as caught:
        open_folder(undisturbed.root, tiny_config({"federation.num_rounds": 2}), resume=True)

    assert str(caught.value) == (
        f"federation.num_rounds is 2, expected at least 3: so many rounds of {undisturbed.root} are done"
    )
    assert undisturbed.read_manifest()["final_round"] == WHOLE


def test_a_number_of_rounds_that_an_attack_depends_on_stays(tmp_path: Path) -> None:
    attack = {"adversaries.rejoiner": 0.25}
    open_folder(tmp_path, tiny_config(attack), resume=False)

    with pytest.raises(ConfigError, match=r"num_rounds is 9, expected 3: adversaries\.rejoiner depends on it$"):
        open_folder(tmp_path, tiny_config(attack | {"federation.num_rounds": 9}), resume=True)
