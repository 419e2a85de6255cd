"""Ledgers on disk: the file, the samples it gives, the schema it must have, and data sets of several files."""

from nerv_fl.data.file import LedgerFile
from nerv_fl.data.multi_file import Ledger, LedgerParts, open_ledger, write_index
from nerv_fl.data.samples import Batches, ChainBlock, Samples
from nerv_fl.data.schema import LedgerInfo
from nerv_fl.data.writer import join_ledgers, write_ledger

__all__ = [
    "Batches",
    "ChainBlock",
    "Ledger",
    "LedgerFile",
    "LedgerInfo",
    "LedgerParts",
    "Samples",
    "join_ledgers",
    "open_ledger",
    "write_index",
    "write_ledger",
]
