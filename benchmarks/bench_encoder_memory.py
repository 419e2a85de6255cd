"""Peak memory of one optimiser step of each preset, and of the forward pass an enclave makes, against its limits.

Each row is a process of its own, whose peak resident memory the operating system keeps (`getrusage`). A step is a real
one: one sample with the drift term, its gradient, the data-free terms', AdamW. `imports` is the same process with
nothing in it; what a model adds is the difference.

Two limits stand beside the peaks. SGX1: an EPC of 128 MB, of which about 93 MB can be used; a Python process with torch
does not fit whatever the model, so only what the model adds is compared. A confidential virtual machine (Intel TDX or
AMD SEV-SNP) of 8 GB: the whole process is compared.

python -m benchmarks.bench_encoder_memory [PRESET ...]      the three small ones if none is named
"""

import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from torch import optim

from benchmarks.measure import print_setting, print_table
from datagen.ledger import LedgerShape, generate_ledger
from nerv_fl import rng
from nerv_fl.bootstrap.gradient import Objective, Team, plain_gradient, private_gradient
from nerv_fl.config import BootstrapConfig, PrivacyConfig
from nerv_fl.data import LedgerFile
from nerv_fl.models.batch import StateBatch, draw_masks, make_batch
from nerv_fl.models.encoder import Encoder
from nerv_fl.models.losses import sample_losses
from nerv_fl.models.presets import get_preset
from nerv_fl.privacy.accounting import private_optimizer
from nerv_fl.threads import use_one_thread

SEED = 7
MOVEMENT_FLOOR = 0.01
SGX_BYTES, VM_BYTES = 93 * 10**6, 8 * 10**9
IMPORTS, FORWARD, STEP, CHECKPOINTED, PRIVATE = "imports", "forward", "step", "step, checkpointing", "DP step, checkp."
KINDS = (FORWARD, STEP, CHECKPOINTED, PRIVATE)


def main() -> None:
    """Measure the presets that are named."""
    names = sys.argv[1:] or ["quickstart", "small", "tee"]
    imports_bytes = measured("quickstart", IMPORTS)
    rows = [row for name in names for row in preset_rows(name, imports_bytes=imports_bytes)]
    print_setting(
        f"Peak memory of one sample, float32; imports alone {megabytes(imports_bytes)} MB", packages=("torch", "opacus")
    )
    print_table(["Preset", "What", "Peak, MB", "Model adds, MB", "SGX1 EPC, 93 MB", "TDX or SEV-SNP, 8 GB"], rows)


def preset_rows(name: str, *, imports_bytes: int) -> list[list[str]]:
    """Return the rows of one preset."""
    rows = []
    for kind in KINDS:
        peak_bytes = measured(name, kind)
        added_bytes = peak_bytes - imports_bytes
        verdicts = ["fits" if fits else "no" for fits in (added_bytes <= SGX_BYTES, peak_bytes <= VM_BYTES)]
        rows.append([name, kind, megabytes(peak_bytes), megabytes(added_bytes), *verdicts])
    return rows


def megabytes(size_bytes: int) -> str:
    """Return a size in MB of 10^6 bytes."""
    return f"{size_bytes / 10**6:,.0f}"


def measured(preset: str, kind: str) -> int:
    """Return the peak of a fresh process that does this, in bytes."""
    command = [sys.executable, "-m", "benchmarks.bench_encoder_memory", "--child", preset, kind]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def child(preset: str, kind: str) -> None:
    """Do one thing in this process and print its peak."""
    use_one_thread()
    work(preset, kind)
    print(1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def work(preset: str, kind: str) -> None:
    """Take the step, or do what else it is."""
    batch = draw_batch(preset)
    if kind == IMPORTS:
        return
    encoder = Encoder(get_preset(preset), checkpoint_activations=kind in (CHECKPOINTED, PRIVATE))
    encoder.reset_parameters(rng.torch_stream(SEED, "weights"))
    if kind == FORWARD:
        with torch.no_grad():
            sample_losses(encoder, batch, table_AD=encoder.table(), movement_floor=MOVEMENT_FLOOR)
        return
    adam = optim.AdamW(encoder.parameters())
    objective = Objective(
        settings=BootstrapConfig(micro_batch=1), movement_floor=MOVEMENT_FLOOR, with_drift=True, team=Team()
    )
    if kind == PRIVATE:
        private = private_optimizer(encoder, adam, privacy=PrivacyConfig(), expected_batch=1)
        private.noise = rng.stream(SEED, "noise")
        private_gradient(encoder, private, batch=batch, objective=objective)
    else:
        plain_gradient(encoder, batch, objective=objective)
    adam.step()


def draw_batch(preset: str) -> StateBatch:
    """Return one sample of a synthetic ledger under drawn masks."""
    num_accounts = get_preset(preset).num_accounts
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.h5"
        generate_ledger(path, LedgerShape(chains=1, steps=1, accounts=num_accounts, seed=SEED))
        with LedgerFile(path) as ledger:
            samples = ledger.read([0])
    return make_batch(samples, draw_masks(rng.stream(SEED, "masks"), num_samples=1, num_accounts=num_accounts))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], sys.argv[3])
    else:
        main()
