"""What an enclave is started with, wherever it runs."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nerv_fl.crypto import VerifyKey
from nerv_fl.enclave.evaluation import Pools, PoolSettings
from nerv_fl.enclave.identity import EnclaveIdentity
from nerv_fl.enclave.round import Enclave


@dataclass(frozen=True, kw_only=True)
class EnclaveSettings:
    """What an enclave needs to know; nothing of it is secret.

    Attributes:
        pools: The held-out pools and the run's settings.
        roster: Registered nodes' verification keys.
        run: Name of the run.
        folder: Where its identity and admission log are kept.
    """

    pools: PoolSettings
    roster: Mapping[int, VerifyKey]
    run: str
    folder: Path

    @property
    def place(self) -> str:
        """Where it runs: `enclave.place`."""
        return self.pools.config.enclave.place


def start_enclave(settings: EnclaveSettings, pools: Pools) -> Enclave:
    """Start an enclave in this process, with the keys that its run began with.

    Raises:
        SealError: If they cannot be read, or unsealed.
        CheckpointError: If the run began with other code.
    """
    return Enclave(
        EnclaveIdentity.load(settings.folder, run=settings.run, place=settings.place),
        settings.roster,
        evaluator=pools,
        config=settings.pools.config,
        run=settings.run,
        folder=settings.folder,
    )
