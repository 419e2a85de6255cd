"""Synthetic ledgers: shards of accounts with roles, whose balances evolve batch after batch."""

from datagen.ledger.generate import generate_ledger, generate_ledger_parts
from datagen.ledger.shape import GENERATOR, LedgerShape

__all__ = ["GENERATOR", "LedgerShape", "generate_ledger", "generate_ledger_parts"]
