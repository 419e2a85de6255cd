"""Where a run's keys are born: in the enclave's place, so that a process that must not hold them never does."""

from concurrent.futures import BrokenExecutor
from pathlib import Path

from nerv_fl.enclave.identity import EnclaveIdentity
from nerv_fl.errors import CheckpointError
from nerv_fl.processes import worker_pool


def prepare_identity(folder: Path, *, run: str, place: str) -> None:
    """Make a run's identity, or see that it can be read again; evidence and vendor root lie in the folder afterwards.

    Args:
        folder: Where it is kept.
        run: Name of the run.
        place: `enclave.place`: with "process", keys exist in a process alone that ends with this call.

    Raises:
        SealError: If what is there cannot be read: see `EnclaveIdentity.load`.
        CheckpointError: If it was made by other code, or the process ended too early.
    """
    if place == "here":
        _prepare(folder, run, place)
        return
    with worker_pool(1) as executor:
        try:
            executor.submit(_prepare, folder, run, place).result()
        except BrokenExecutor as error:
            raise CheckpointError(
                f"the process that makes the enclave's keys in {folder} died; start the run again"
            ) from error


def _prepare(folder: Path, run: str, place: str) -> None:
    EnclaveIdentity.load_or_create(folder, run=run, place=place)
