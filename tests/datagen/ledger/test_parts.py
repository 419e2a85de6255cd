"""A ledger made in parts is the same file, whoever made them, and however often they were stopped."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from datagen.ledger import LedgerShape, generate, generate_ledger, generate_ledger_parts
from datagen.ledger_checks import verify_ledger
from datagen.parts import Part, make_parts, plan_parts
from nerv_fl.data import LedgerFile, open_ledger
from nerv_fl.errors import ConfigError, DataError

SHAPE = LedgerShape(chains=2500, steps=4, accounts=1024, max_transactions=8, heterogeneity=1.0)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("whole") / "ledger.h5"
    generate_ledger(path, SHAPE)
    return path


def test_the_shape_has_several_parts() -> None:
    assert len(plan_parts(Path("a"), total=SHAPE.chains, size=SHAPE.chains_per_part)) >= 2


def test_two_workers_write_the_same_bytes(whole: Path, tmp_path: Path) -> None:
    seen: list[int] = []
    generate_ledger(tmp_path / "ledger.h5", SHAPE, workers=2, progress=seen.append)
    assert (tmp_path / "ledger.h5").read_bytes() == whole.read_bytes()
    assert sum(seen) == SHAPE.chains
    assert [path.name for path in tmp_path.iterdir()] == ["ledger.h5"]


def test_joining_changes_nothing(whole: Path, tmp_path: Path) -> None:
    """The joined file holds what one writer writes at once."""
    generate.write_part(SHAPE, Part(number=0, first=0, last=SHAPE.chains, path=tmp_path / "at-once.h5"))
    with LedgerFile(tmp_path / "at-once.h5") as once, LedgerFile(whole) as joined:
        assert once.info == joined.info
    verify_ledger(whole, min_changed=0)


def test_a_stopped_run_is_continued(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, made = tmp_path / "ledger.h5", list[int]()
    write_part = generate.write_part

    def stopping(shape: LedgerShape, part: Part, *, staged: bool) -> None:
        if part.number == 1:
            raise OSError(28, "No space left on device", str(part.path))
        write_part(shape, part, staged=staged)

    monkeypatch.setattr(generate, "write_part", stopping)
    with pytest.raises(OSError, match="No space left on device"):
        generate_ledger(path, SHAPE)
    assert not path.exists()

    def counting(shape: LedgerShape, part: Part, *, staged: bool) -> None:
        made.append(part.number)
        write_part(shape, part, staged=staged)

    monkeypatch.setattr(generate, "write_part", counting)
    generate_ledger(path, SHAPE, resume=True)
    assert 0 not in made
    assert 1 in made
    assert path.read_bytes() == whole.read_bytes()


def test_another_shape_cannot_continue_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_shape: LedgerShape, _part: Part, *, staged: bool) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(generate, "write_part", full)
    with pytest.raises(OSError, match="No space"):
        generate_ledger(tmp_path / "a.h5", SHAPE)
    with pytest.raises(ConfigError) as error:
        generate_ledger(tmp_path / "a.h5", LedgerShape(**{**vars(SHAPE), "seed": 8}), resume=True)
    assert str(error.value) == f"seed is 8, expected 7: {tmp_path / 'a.h5'} was begun with it"


@pytest.mark.slow
def test_killed_it_goes_on_to_the_same_file(whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "ledger.h5"
    words = [
        "--chains",
        "2500",
        "--steps",
        "4",
        "--accounts",
        "1024",
        "--max-transactions",
        "8",
        "--heterogeneity",
        "1",
        "--workers",
        "1",
    ]
    command = [sys.executable, "-m", "datagen", "ledger", "--out", str(path), *words]
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
    staging = tmp_path / "ledger.h5.parts"
    while process.poll() is None and not list(staging.glob("part-*")):
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not path.exists()
    subprocess.run([*command, "--resume"], check=True, capture_output=True)
    assert path.read_bytes() == whole.read_bytes()


def test_a_folder_of_parts_reads_as_one_ledger(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate, "make_parts", partial(_without_ray, calls=[]))
    info = generate_ledger_parts(tmp_path / "parts", SHAPE, ray="local")
    with LedgerFile(whole) as one, open_ledger(tmp_path / "parts") as many:
        assert info == many.info == one.info
        assert many.num_transactions == one.num_transactions
        ids = [9999, 0, 6552, 6551, 6553, 0]
        found, expected = many.read(ids, with_batches=True), one.read(ids, with_batches=True)
        for name in ("before", "after", "supply_nano", "chain", "step"):
            assert (getattr(found, name) == getattr(expected, name)).all(), name
        assert found.batches is not None
        assert expected.batches is not None
        for name, values in vars(expected.batches).items():
            assert (getattr(found.batches, name) == values).all(), name
        block, other = many.read_chains(1500, 2000), one.read_chains(1500, 2000)
        assert all((getattr(block, name) == values).all() for name, values in vars(other).items())
        assert (many.shard_kinds() == one.shard_kinds()).all()
        assert many.read([]).before.shape == (0, 1024)
        with pytest.raises(ConfigError, match="sample is 10000, expected 0 to 9999"):
            many.read([10_000])
    assert verify_ledger(tmp_path / "parts", min_changed=0) == verify_ledger(whole, min_changed=0)


def test_a_folder_that_was_begun_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr(generate, "make_parts", partial(_without_ray, calls=calls))
    generate_ledger_parts(tmp_path, SHAPE, ray="local")
    index, count = (tmp_path / "index.json").read_bytes(), len(calls)
    (tmp_path / "index.json").unlink()
    with pytest.raises(DataError, match=r"index\.json does not exist, expected the index of a ledger's parts"):
        open_ledger(tmp_path)
    (tmp_path / "part-00001.h5").unlink()
    generate_ledger_parts(tmp_path, SHAPE, ray="local")
    assert calls[count:] == [1]
    assert (tmp_path / "index.json").read_bytes() == index
    with pytest.raises(DataError, match=r"part-00000\.h5 holds .* expected"):
        generate_ledger_parts(tmp_path, LedgerShape(**{**vars(SHAPE), "seed": 8}), ray="local")


def test_an_exchanged_part_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate, "make_parts", partial(_without_ray, calls=[]))
    generate_ledger_parts(tmp_path, SHAPE, ray="local")
    (tmp_path / "part-00001.h5").write_bytes((tmp_path / "part-00000.h5").read_bytes())
    with pytest.raises(DataError, match=r"part-00001\.h5: its content hashes to [0-9a-f]{64}, expected [0-9a-f]{64}"):
        open_ledger(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"cannot be read \(.*\), expected the index of a ledger's parts"),
        ('{"schema_version": 1, "content_sha256": "", "parts": []}', "schema_version is 1, expected 2"),
        ('{"schema_version": 2, "content_sha256": "", "parts": []}', "names no part, expected at least one"),
        (
            '{"schema_version": 2, "content_sha256": "", "parts": [{"file": "../a.h5"}]}',
            r"part '\.\./a\.h5' lies elsewhere, expected a file of the same folder",
        ),
    ],
)
def test_a_damaged_index_is_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "index.json").write_text(content)
    with pytest.raises(DataError, match=rf"index\.json:? {message}$"):
        open_ledger(tmp_path)


@pytest.mark.slow
def test_a_ray_cluster_writes_the_same_data_set(whole: Path, tmp_path: Path) -> None:
    command = f"from pathlib import Path\nfrom datagen.ledger import *\ngenerate_ledger_parts(Path({str(tmp_path)!r}), "
    subprocess.run([sys.executable, "-c", f"{command}{SHAPE!r}, ray='local')"], check=True, timeout=300)
    with LedgerFile(whole) as one, open_ledger(tmp_path) as many:
        assert many.info == one.info


def _without_ray(make: object, parts: list[Part], *, calls: list[int], **_: object) -> None:
    calls.extend(part.number for part in parts if not part.path.exists())
    make_parts(make, parts)  # type: ignore[arg-type]
