import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from nerv_fl.client import node as node_module
from nerv_fl.client.node import register
from nerv_fl.config import Flat
from nerv_fl.crypto import decode_update, encode_update, read_envelope
from nerv_fl.data import Samples
from nerv_fl.enclave.create_identity import prepare_identity
from nerv_fl.enclave.identity import VENDOR_ROOT_FILE, EnclaveIdentity, own_code_hash, read_vendor_root
from nerv_fl.errors import PrivacyError, SealError
from nerv_fl.privacy.budget import SpendingLedger
from nerv_fl.rng import stream
from nerv_fl.types import IntArray
from tests.client.conftest import Field
from tests.federation.tiny_run import num_parameters


def spent(field: Field, number: int) -> dict[str, int]:
    """Return what a node's disk says it spent."""
    path = field.folder.node(number) / "spending.json"
    return dict(json.loads(path.read_text())["steps"]) if path.exists() else {}


def test_an_answer_is_an_update_that_only_the_enclave_can_read(field: Field) -> None:
    order, envelope = field.order(), field.answer(3)

    context = read_envelope(envelope).header.context
    assert (context.run, context.round, context.node, context.base_hash) == (order.run, 1, 3, order.base_hash)
    update_P = field.opened(envelope, 3)
    assert np.isfinite(update_P).all()
    assert np.linalg.norm(update_P) > 0
    assert update_P.tobytes() not in envelope


def test_the_update_is_reproducible_and_the_nodes_own(field: Field) -> None:
    first = field.opened(field.answer(3), 3)
    (field.folder.node(3) / "sent.envelope").unlink()

    again, other = field.opened(field.answer(3), 3), field.opened(field.answer(4), 4)

    assert np.array_equal(first, again)
    assert abs(np.corrcoef(first, other)[0, 1]) < 0.9


def test_in_deployment_nothing_is_seeded(field: Field) -> None:
    first = field.opened(field.answer(3, simulated=False), 3)
    (field.folder.node(3) / "sent.envelope").unlink()

    assert not np.allclose(first, field.opened(field.answer(3, simulated=False), 3))


@pytest.mark.parametrize("codec", ["bf16", "int8"])
def test_an_update_is_rounded_by_the_nodes_own_stream(
    codec: str, field: Field, tmp_path: Path, make_field: Callable[[Flat], Field]
) -> None:
    exact = field.opened(field.answer(3), 3)
    shutil.rmtree(tmp_path / "run")
    rounding = make_field({"training.codec": codec})
    first = rounding.opened(rounding.answer(3), 3)
    (rounding.folder.node(3) / "sent.envelope").unlink()

    again = rounding.opened(rounding.answer(3), 3)

    assert np.array_equal(first, again)
    expected = encode_update(exact, codec=codec, rounding=stream(7, "codec", 1, 3))
    assert np.array_equal(first, decode_update(expected, num_parameters=len(exact), codec=codec))


def test_in_deployment_rounding_is_not_seeded_either(
    make_field: Callable[[Flat], Field], monkeypatch: pytest.MonkeyPatch
) -> None:
    field = make_field({"training.codec": "int8"})
    update = torch.from_numpy(np.random.default_rng(1).normal(size=num_parameters()).astype(np.float32))
    monkeypatch.setattr(field.trainer, "update", lambda *_, **__: update)
    first = field.opened(field.answer(3, simulated=False), 3)
    (field.folder.node(3) / "sent.envelope").unlink()

    assert not np.array_equal(first, field.opened(field.answer(3, simulated=False), 3))


def test_asked_again_it_resends_the_very_same_envelope_and_spends_nothing(
    field: Field, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = field.answer(3)
    before = spent(field, 3)

    def never(*_arguments: object, **_keywords: object) -> None:
        raise AssertionError("a node trains once for a round")

    monkeypatch.setattr(field.trainer, "update", never)

    assert field.answer(3) == first
    assert spent(field, 3) == before == {f"{field.order().run}/1": 1}


def test_asked_again_from_another_encoder_it_refuses(field: Field) -> None:
    """Two updates of one round from two encoders would be twice the privacy."""
    order = field.order()
    field.answer(3, order)
    moved = field.moved(order)

    with pytest.raises(PrivacyError) as caught:
        field.answer(3, moved)

    assert str(caught.value) == (
        f"node 3 answered round 1 from encoder {order.base_hash[:12]}, "
        f"expected not to be asked again from {moved.base_hash[:12]}"
    )


def test_an_earlier_round_is_not_answered_again(field: Field) -> None:
    order = field.order()
    field.answer(3, order)
    field.answer(3, field.moved(order, round_number=2))

    with pytest.raises(PrivacyError, match=r"^round 1 of .* was answered before, expected .*/2 or a new one$"):
        field.answer(3, order)
    assert len(spent(field, 3)) == 2


def test_a_damaged_stored_envelope_is_not_resent_and_not_trained_for_again(field: Field) -> None:
    field.answer(3)
    (field.folder.node(3) / "sent.envelope").write_bytes(b"damaged")

    with pytest.raises(PrivacyError, match=r"sent.envelope is damaged .*, expected what this node wrote$"):
        field.answer(3)


def test_an_enclave_in_its_own_process_is_held_to_vendor_root_and_code(
    field: Field, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NERV_FL_MACHINE", str(tmp_path / "machine.secret"))
    folder, order = tmp_path / "apart", field.order()
    prepare_identity(folder, run=order.run, place="process")
    order = field.order(evidence=(folder / "evidence.json").read_text())
    root = read_vendor_root(folder / VENDOR_ROOT_FILE)

    with pytest.raises(SealError, match=r"^evidence is not signed by the vendor root "):
        field.answer(3, order)
    with pytest.raises(SealError, match=rf"^evidence has the code_hash '{own_code_hash()}', expected '{'cd' * 32}'$"):
        field.answer(3, order, vendor_root=root, code_hash="cd" * 32)
    assert spent(field, 3) == {}

    assert read_envelope(field.answer(3, order, vendor_root=root)).header.context.node == 3


def test_evidence_of_another_vendor_is_refused_before_anything_is_spent(field: Field, tmp_path: Path) -> None:
    stranger = EnclaveIdentity.create(tmp_path / "stranger", run=field.order().run)

    with pytest.raises(SealError) as caught:
        field.answer(3, field.order(evidence=stranger.evidence.to_text()))

    assert str(caught.value) == (f"evidence is not signed by the vendor root {field.identity.vendor_root.fingerprint}")
    assert spent(field, 3) == {}


def test_evidence_of_another_run_is_refused(field: Field) -> None:
    run = field.order().run

    with pytest.raises(SealError, match=rf"^evidence has the run '{run}', expected 'other'$"):
        field.answer(3, field.order(run="other"))
    assert spent(field, 3) == {}


def test_evidence_that_is_none_is_refused(field: Field) -> None:
    with pytest.raises(SealError, match=r"^evidence "):
        field.answer(3, field.order(evidence="{}"))


def test_an_encoder_other_than_announced_is_refused(field: Field) -> None:
    with pytest.raises(SealError) as caught:
        field.answer(3, field.order(base_hash="00" * 32))

    assert str(caught.value) == f"encoder of round 1 does not have the hash {'00' * 32}, which was announced"
    assert spent(field, 3) == {}


def test_an_exchanged_encoder_is_refused(field: Field) -> None:
    theta_P = field.order().theta_P.clone()
    theta_P[0] += 1

    with pytest.raises(SealError, match=r"which was announced$"):
        field.answer(3, field.order(theta_P=theta_P))


def test_past_its_budget_it_refuses_and_keeps_its_update(make_field: Callable[[Flat], Field]) -> None:
    field = make_field({"privacy.max_epsilon": 10.0})
    order = field.order()
    field.answer(3, order)

    with pytest.raises(
        PrivacyError, match=r"^epsilon after round 2 would be 1\d\.\d\d\d at delta 1e-05 .* at most 10$"
    ):
        field.answer(3, field.moved(order, round_number=2))
    assert len(spent(field, 3)) == 1


def test_spending_is_on_disk_before_the_update_exists(field: Field, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed while it trains, a node has spent; asked again it trains again, for the same entry."""

    def killed(*_arguments: object, **_keywords: object) -> None:
        assert spent(field, 3) == {f"{field.order().run}/1": 1}
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(field.trainer, "update", killed)
        with pytest.raises(KeyboardInterrupt):
            field.answer(3)

    field.answer(3)
    assert spent(field, 3) == {f"{field.order().run}/1": 1}


def test_killed_between_envelope_and_index_it_trains_again(field: Field, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was never sent may be replaced; in a simulation the update is even the same."""
    first = field.opened(field.answer(3), 3)
    (field.folder.node(3) / "sent.envelope").unlink()

    assert np.array_equal(field.opened(field.answer(3), 3), first)
    assert len(spent(field, 3)) == 1


def test_the_spending_ledger_knows_the_nodes_own_sampling_rate(field: Field, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []

    class Watched(SpendingLedger):
        def __init__(self, path: Path, **keywords: object) -> None:
            seen.append(keywords["mechanism"].sampling_rate)  # type: ignore[attr-defined]
            super().__init__(path, **keywords)  # type: ignore[arg-type]

    monkeypatch.setattr(node_module, "SpendingLedger", Watched)

    field.node(3, samples=np.arange(0, 64))

    assert seen == [32 / 64]


def test_only_its_own_records_are_read(field: Field, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    read = field.ledger.read

    def watched(ids: IntArray, **keywords: bool) -> Samples:
        drawn.extend(ids.tolist())
        return read(ids, **keywords)

    monkeypatch.setattr(field.ledger, "read", watched)

    field.answer(5)

    assert drawn
    assert 5 * 128 <= min(drawn) <= max(drawn) < 6 * 128


def test_registering_twice_keeps_the_key(tmp_path: Path) -> None:
    first = register(tmp_path / "node")

    assert register(tmp_path / "node") == first
    assert register(tmp_path / "other") != first


def test_the_order_is_not_changed(field: Field) -> None:
    order = field.order()
    before = order.theta_P.clone()

    field.answer(3, order)

    assert torch.equal(order.theta_P, before)
