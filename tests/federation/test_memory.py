"""A run's memory does not grow with its rounds."""

import gc
from pathlib import Path

import pytest

from nerv_fl.privacy.accounting import Mechanism, epsilon_of
from nerv_fl.records import RoundRecord
from nerv_fl.server.app import serve
from tests.federation.tiny_run import NUM_SUPERNODES, copy_run, make_grid

WARM, LAST = 30, 100


def resident_bytes() -> int:
    """Return what this process holds in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs the proc file system")
def test_memory_is_flat_over_a_hundred_rounds(tmp_path: Path) -> None:
    """From round 30 to round 100 less than 16 MiB are added, where one update kept a round and node would be 80 MiB."""
    settings = {
        "federation.num_rounds": LAST,
        "federation.cohort_size": 6,
        "training.expected_batch": 2,
        "privacy.max_epsilon": 1e6,
        "valuation.method": "none",
        "gate.search_samples": 8,
        "gate.certify_samples": 8,
        "gate.monitor_samples": 8,
        "gate.steps": [1.0],
        "valuation.gradient_samples": 8,
    }
    folder = copy_run(tmp_path / "run", **settings)
    grid = make_grid(folder, num_supernodes=NUM_SUPERNODES, meddle=None)
    config = folder.config
    mechanism = Mechanism(sigma=config.privacy.sigma, sampling_rate=config.sampling_rate, unit=config.privacy_unit)
    for num_steps in range(LAST + 1):  # SciPy keeps its last 16 FFT plans, and the accountant's grow with epsilon
        epsilon_of(mechanism, num_steps, delta=config.privacy.delta)
    held: dict[int, int] = {}

    def note(record: RoundRecord, _rows: object) -> None:
        grid.sent.clear()  # the fake grid remembers every message for tests to read
        grid.replies.clear()
        gc.collect()
        held[record.round] = resident_bytes()

    serve(grid, folder, num_supernodes=NUM_SUPERNODES, on_round=note)
    assert sorted(held) == list(range(LAST + 1))
    assert held[LAST] - held[WARM] < 16 * 2**20
