from pathlib import Path

import pytest

from nerv_fl.client.outbox import SENT_FILE, Label, envelope_of, keep, label_of
from nerv_fl.errors import PrivacyError

LABEL = Label(run="run-1", round_number=3, base_hash="ab" * 32)
ENVELOPE = bytes(range(256)) * 8  # with newlines in it


def test_what_was_kept_is_read_back_and_replaces_the_one_before(tmp_path: Path) -> None:
    keep(tmp_path, Label(run="run-1", round_number=2, base_hash="cd" * 32), b"older")
    keep(tmp_path, LABEL, ENVELOPE)

    assert label_of(tmp_path) == LABEL
    assert envelope_of(tmp_path) == ENVELOPE
    assert [path.name for path in tmp_path.iterdir()] == [SENT_FILE]


def test_nothing_was_sent(tmp_path: Path) -> None:
    assert label_of(tmp_path) is None
    with pytest.raises(PrivacyError, match=rf"{SENT_FILE} is damaged \(.*No such file"):
        envelope_of(tmp_path)


@pytest.mark.parametrize("length", [0, 20, 300, -1])
def test_a_file_that_was_cut_gives_no_envelope(tmp_path: Path, length: int) -> None:
    keep(tmp_path, LABEL, ENVELOPE)
    whole = (tmp_path / SENT_FILE).read_bytes()
    (tmp_path / SENT_FILE).write_bytes(whole[:length])

    with pytest.raises(PrivacyError, match=rf"{SENT_FILE} is damaged"):
        envelope_of(tmp_path)


def test_an_envelope_with_one_bit_changed_is_not_given(tmp_path: Path) -> None:
    keep(tmp_path, LABEL, ENVELOPE)
    altered = bytearray((tmp_path / SENT_FILE).read_bytes())
    altered[-1] ^= 1
    (tmp_path / SENT_FILE).write_bytes(altered)

    with pytest.raises(PrivacyError, match=r"does not end in the envelope that this node sent$"):
        envelope_of(tmp_path)


@pytest.mark.parametrize("line", [b"{", b"[]", b'{"run": "r", "round": "3", "base_hash": "h"}', b"\xff"])
def test_a_first_line_that_says_nothing(tmp_path: Path, line: bytes) -> None:
    (tmp_path / SENT_FILE).write_bytes(line + b"\n" + ENVELOPE)

    with pytest.raises(PrivacyError, match=rf"{SENT_FILE} is damaged \(.*\), expected what this node wrote$"):
        label_of(tmp_path)
