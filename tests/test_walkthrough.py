"""The walk-through of docs/ runs as it stands, on a folder of its own, and draws its pictures."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "docs" / "contribution_walkthrough.py"


@pytest.mark.slow
def test_the_walkthrough_runs_and_draws(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path)],
        env={**os.environ, "MPLBACKEND": "agg", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=1200,
    )

    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == {
        "values.png",
        "convergence.png",
        "surrogate.png",
        "games.png",
    }
    surrogate = next(line for line in done.stdout.splitlines() if line.startswith("midpoint surrogate"))
    assert float(surrogate.split()[-1]) < 0.2
