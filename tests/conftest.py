"""What every test shares: one thread, no telemetry, no network calls home, repeatable examples."""

import os

import torch
from hypothesis import settings

os.environ.update(
    FLWR_DISABLE_UPDATE_CHECK="1",
    FLWR_TELEMETRY_ENABLED="0",
    OMP_NUM_THREADS="1",
    RAY_USAGE_STATS_ENABLED="0",
)
torch.set_num_threads(1)

# No deadline: a busy machine is not a defect. Derandomised: the same commit gives the same verdict.
settings.register_profile("nerv", deadline=None, derandomize=True)
settings.load_profile("nerv")
