"""Ledgers on disk: the file, the samples it gives, and the schema it must have."""

from nerv_fl.store.file import LedgerFile
from nerv_fl.store.samples import Batches, ChainBlock, Samples
from nerv_fl.store.schema import LedgerInfo
from nerv_fl.store.writer import write_ledger

__all__ = ["Batches", "ChainBlock", "LedgerFile", "LedgerInfo", "Samples", "write_ledger"]
