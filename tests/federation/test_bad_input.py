"""Files that are missing, damaged or another run's: a clear error, and nothing lost."""

from pathlib import Path

import h5py
import pytest

from datagen.ledger import LedgerShape, generate_ledger
from nerv_fl.enclave.identity import own_code_hash
from nerv_fl.errors import CheckpointError, DataError, NoUpdateError, SealError
from nerv_fl.server.run_folder import RunFolder
from tests.federation.conftest import NewRun
from tests.federation.tiny_run import run_rounds


def snapshot(folder: RunFolder) -> dict[Path, bytes]:
    """Return the content of every file of a run."""
    return {path: path.read_bytes() for path in folder.root.rglob("*") if path.is_file()}


@pytest.mark.parametrize("pool", ["search", "certify", "final"])
def test_missing_pool(pool: str, new_run: NewRun) -> None:
    folder = new_run()
    path = folder.data(pool)
    path.unlink()

    with pytest.raises(DataError) as caught:
        run_rounds(folder)

    assert str(caught.value) == f"{path} does not exist, expected a ledger file"


def test_truncated_pool(new_run: NewRun) -> None:
    folder = new_run()
    path = folder.data("certify")
    path.write_bytes(path.read_bytes()[:5000])
    before = snapshot(folder)

    with pytest.raises(DataError) as caught:
        run_rounds(folder)

    assert str(caught.value).startswith(f"{path} is not a readable HDF5 file (")
    assert str(caught.value).endswith("), expected a whole ledger file")
    assert before.items() <= snapshot(folder).items()


def test_foreign_pool(new_run: NewRun) -> None:
    folder = new_run()
    path = folder.data("search")
    path.unlink()
    with h5py.File(path, "w") as file:
        file["balances"] = [1, 2, 3]

    with pytest.raises(DataError, match="^" + str(path)):
        run_rounds(folder)


def test_pool_of_another_account_number(new_run: NewRun) -> None:
    folder = new_run()
    path = folder.data("search")
    generate_ledger(path, LedgerShape(chains=32, steps=4, accounts=32, max_transactions=8, profile="live", seed=1))

    with pytest.raises(DataError) as caught:
        run_rounds(folder)

    assert str(caught.value) == f"{path} has 32 accounts, expected 64 (the model's)"


def test_nodes_ledger_of_another_account_number(new_run: NewRun) -> None:
    """No node can train with it: the run stops before its first round is recorded."""
    folder = new_run(**{"federation.num_rounds": 1})
    path = folder.data("nodes")
    generate_ledger(path, LedgerShape(chains=256, steps=4, accounts=32, max_transactions=8, profile="live", seed=1))

    with pytest.raises(NoUpdateError) as caught:
        run_rounds(folder)

    assert str(caught.value).startswith(
        f"round 1: 6 of 6 nodes: {path} has 32 accounts, expected 64 (the model's). The run stops here"
    )
    assert [record.round for record in folder.rounds()] == [0]


def test_damaged_bootstrap(new_run: NewRun) -> None:
    folder = new_run()
    folder.bootstrap_path.write_bytes(b"not weights")

    with pytest.raises(CheckpointError, match=f"^{folder.bootstrap_path} cannot be read as safetensors: "):
        run_rounds(folder)


def test_damaged_enclave_key(new_run: NewRun) -> None:
    folder = new_run()
    (folder.enclave / "opening.key").unlink()

    with pytest.raises(SealError, match=r"opening\.key cannot be read as HPKE private key: FileNotFoundError$"):
        run_rounds(folder)


def test_run_of_another_version_of_the_code_is_not_resumed(new_run: NewRun) -> None:
    folder = new_run()
    evidence = folder.enclave / "evidence.json"
    evidence.write_text(evidence.read_text().replace(own_code_hash(), "0" * 64))

    with pytest.raises(CheckpointError, match=r"is for code 0{12}, expected .*another version of nerv_fl$"):
        run_rounds(folder)


def test_damaged_spending_ledger_stops_its_node_only(new_run: NewRun, caplog: pytest.LogCaptureFixture) -> None:
    folder = new_run(**{"federation.num_rounds": 1})
    path = folder.node(5) / "spending.json"
    path.write_text('{"steps": {}}')

    run_rounds(folder)

    nodes = folder.rounds()[1].nodes
    assert nodes is not None
    assert (nodes.heard, nodes.admitted) == (5, 5)
    assert f"{path} is not a spending ledger" in caplog.text


def test_damaged_checkpoint_is_refused_and_left_alone(new_run: NewRun) -> None:
    folder = new_run(**{"federation.num_rounds": 1})
    run_rounds(folder)
    weights = folder.checkpoint / "round-00001.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    before = snapshot(folder)

    with pytest.raises(CheckpointError, match=r"round-00001\.safetensors has SHA-256 "):
        run_rounds(folder)

    assert snapshot(folder) == before
