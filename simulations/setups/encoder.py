"""The encoder's setup: ledgers, and pretraining on the public one."""

from pathlib import Path

from datagen.ledger import LedgerShape, generate_ledger
from nerv_fl.bootstrap.pretrain import pretrain
from nerv_fl.config import RunConfig
from nerv_fl.data import LedgerFile
from nerv_fl.models.presets import get_preset
from simulations.setups.setup import PUBLIC, OnStep, pool_seed


class EncoderSetup:
    """Ledgers of the `live` profile, the public one of `genesis`."""

    def num_public_chains(self, config: RunConfig) -> int:
        """Return the chains to train on and those held out."""
        return config.data.bootstrap_chains + config.data.heldout_chains

    def make_data(self, config: RunConfig, path: Path, *, pool: str, chains: int) -> None:
        """Generate a pool's ledger."""
        data, profile = config.data, "genesis" if pool == PUBLIC else "live"
        shape = LedgerShape(
            chains=chains,
            steps=data.steps,
            accounts=get_preset(config.model.preset).num_accounts,
            max_transactions=data.max_transactions,
            profile=profile,
            seed=pool_seed(config, pool),
            heterogeneity=data.heterogeneity if profile == "live" else 0.0,
        )
        generate_ledger(path, shape, resume=True)

    def content_hash(self, path: Path) -> str:
        """Return the hash of a ledger's content."""
        with LedgerFile(path) as ledger:
            return ledger.info.content_sha256

    def make_start(self, config: RunConfig, public: Path, *, out: Path, on_step: OnStep) -> None:
        """Pretrain the encoder."""
        pretrain(config, public, out=out, progress=on_step, resume=True)
