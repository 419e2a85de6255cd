"""What a run leaves on the disk grows by its records and by nothing else."""

from pathlib import Path

import pytest

from nerv_fl.server.run_folder import RunFolder
from tests.federation.tiny_run import copy_run, run_rounds

FEW, MORE = 2, 6
ROUND_BYTES = 40_000
"""A certificate, and lines in three files."""


def sizes(folder: Path) -> dict[str, int]:
    """Return every file and its size, whatever the round in its name."""
    return {str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_only_records_grow(tmp_path: Path) -> None:
    folder = copy_run(tmp_path / "run", **{"federation.num_rounds": FEW, "federation.cohort_size": 8})
    config = copy_run(tmp_path / "more", **{"federation.num_rounds": MORE, "federation.cohort_size": 8}).config
    run_rounds(folder)
    few = sizes(folder.root)
    folder.write_config(config)

    run_rounds(RunFolder(folder.root))

    more = sizes(folder.root)
    grown = {name for name in more if more[name] > few.get(name, 0) + 1_000 and "checkpoint/" not in name}
    records = {"rounds.jsonl", "rewards.csv", "ledger.jsonl", "report.html"}
    assert {name for name in grown if not name.startswith("certificates/")} <= records
    assert sum(name.startswith("checkpoint/") for name in more) == 5
    assert sum(more.values()) - sum(few.values()) < (MORE - FEW) * ROUND_BYTES
