"""Samples reach a training loop as tokens, the same ones whoever reads them."""

import pickle
import re
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from nerv_fl.data import Samples
from nerv_fl.data.torch_datasets import LedgerSamples, TokenPair, collate
from nerv_fl.errors import ConfigError, DataError
from nerv_fl.tokens import tokens
from tests.data.small_ledger import ACCOUNTS, CHAINS, STEPS, make_block


def batches(samples: LedgerSamples, *, num_workers: int) -> list[TokenPair]:
    context = "fork" if num_workers else None
    loader = DataLoader(
        samples,
        batch_size=7,
        collate_fn=collate,
        num_workers=num_workers,
        multiprocessing_context=context,
        generator=torch.Generator(),
    )
    return list(loader)


def test_one_sample_by_hand(path: Path) -> None:
    before, after = LedgerSamples(path)[4]  # chain 1, step 1: account i has 1100 + i before, 1200 + i after
    assert before.dtype == after.dtype == torch.int64
    # 2^(40 / 4) = 1024 and 2^(41 / 4) = 1218 NANO are the edges of bucket 41; its token is 1 + 8 + 41.
    assert before.tolist() == [0, 1, 50, 2, 50, 3, 50, 4, 50, 5, 50, 6, 50, 7, 50, 8, 50]
    assert after.tolist() == before.tolist()


def test_every_sample(path: Path) -> None:
    samples, states = LedgerSamples(path), make_block(0, CHAINS).balances
    assert len(samples) == CHAINS * STEPS == 33
    for index in range(33):
        chain, step = divmod(index, STEPS)
        assert samples[index].before.tolist() == tokens(states[chain, step]).tolist()
        assert samples[index].after.tolist() == tokens(states[chain, step + 1]).tolist()


def test_samples_come_in_the_order_asked_for_from_one_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = LedgerSamples(path)
    read, reads = samples._ledger.read, []

    def record(ids: list[int]) -> Samples:
        reads.append(ids)
        return read(ids)

    monkeypatch.setattr(samples._ledger, "read", record)
    found = samples.__getitems__([20, 3, 20])
    assert reads == [[20, 3, 20]]
    assert [pair.before.tolist() for pair in found] == [samples[index].before.tolist() for index in (20, 3, 20)]
    assert samples[20].before.tolist() != samples[3].before.tolist()


def test_collate_stacks_samples(path: Path) -> None:
    samples = LedgerSamples(path)
    batch = collate([samples[0], samples[30]])
    assert batch.before.shape == batch.after.shape == (2, 1 + 2 * ACCOUNTS)
    assert torch.equal(batch.before[1], samples[30].before)
    assert torch.equal(batch.after[0], samples[0].after)


def test_workers_give_the_same_batches(path: Path) -> None:
    samples = LedgerSamples(path)
    expected = batches(samples, num_workers=0)  # and leaves the file open here, when the workers are forked
    found = batches(samples, num_workers=2)
    assert [len(batch.before) for batch in found] == [7, 7, 7, 7, 5]
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one.before, other.before)
        assert torch.equal(one.after, other.after)


def test_a_copy_for_a_spawned_worker_opens_the_file_itself(path: Path) -> None:
    samples = LedgerSamples(path)
    expected = samples[8]
    copied = pickle.loads(pickle.dumps(samples))
    samples.close()
    assert torch.equal(copied[8].before, expected.before)
    assert torch.equal(samples[8].before, expected.before)


def test_nothing_is_open_before_the_first_read(path: Path) -> None:
    samples = LedgerSamples(path)
    path.unlink()
    with pytest.raises(DataError, match="does not exist"):
        samples[0]


@pytest.mark.parametrize("index", [-1, 33])
def test_samples_that_do_not_exist(path: Path, index: int) -> None:
    samples = LedgerSamples(path)
    with pytest.raises(IndexError, match=f"^{re.escape(f'sample is {index}, expected 0 to 32 (of {path})')}$"):
        samples[index]
    with pytest.raises(ConfigError, match=f"^{re.escape(f'sample is {index}, expected 0 to 32 (of {path})')}$"):
        samples.__getitems__([0, index])


def test_missing_ledger(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist, expected a ledger file"):
        LedgerSamples(tmp_path / "no.h5")
