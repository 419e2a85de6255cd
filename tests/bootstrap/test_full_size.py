"""The protocol's full size, 77.8 million parameters, is pretrained on an ordinary machine."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors import safe_open

from nerv_fl.bootstrap.resume import checkpoint_path

MAX_BYTES = 8 * 10**9

ONE_STEP = """
import json, sys
from pathlib import Path
from datagen.ledger import LedgerShape, generate_ledger
from nerv_fl.bootstrap.pretrain import pretrain
from nerv_fl.config import build

folder = Path(sys.argv[1])
generate_ledger(
    folder / "ledger.h5",
    LedgerShape(chains=3, steps=1, accounts=1024, max_transactions=256, profile="genesis", seed=1),
)
settings = {
    "model.preset": "whitepaper", "data.heldout_chains": 2,
    "bootstrap.steps": 1, "bootstrap.batch_size": 1, "bootstrap.micro_batch": 1, "bootstrap.checkpointing": True,
    "bootstrap.drift_every": 1, "bootstrap.warmup_steps": 0, "bootstrap.learning_rate": 1e-4,
}
result = pretrain(build(settings), folder / "ledger.h5", out=folder / "encoder.safetensors")
# ru_maxrss begins at what the parent held when it forked; VmHWM is this process alone.
print(json.dumps({
    "losses": [point.measures.loss for point in result.curve],
    "best_step": result.best_step,
    "peak_bytes": 1024 * int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]),
}))
"""


@pytest.mark.slow
def test_whitepaper_takes_a_step_within_8_gb(tmp_path: Path) -> None:
    """All of it: start, checkpoint, a step with the drift term, evaluation, file; one sample, blocks computed again."""
    process = subprocess.run(
        [sys.executable, "-c", ONE_STEP, str(tmp_path)], capture_output=True, text=True, check=True
    )
    found = json.loads(process.stdout)
    start, end = found["losses"]
    assert 0 < end < start
    assert found["best_step"] == 1
    assert found["peak_bytes"] <= MAX_BYTES
    with safe_open(tmp_path / "encoder.safetensors", framework="pt") as file:
        assert file.metadata()["preset"] == "whitepaper"
        assert sum(file.get_tensor(name).numel() for name in file.keys()) == 77_757_184  # noqa: SIM118
    assert not checkpoint_path(tmp_path / "encoder.safetensors").exists()
