"""Return of a damaged run folder to its newest whole checkpoint.

Nothing is deleted: whatever is replaced or cut is first copied to `damaged-1/`, `damaged-2/` and so on. A folder that
holds rounds never starts over; `read_state` refuses and names `nerv-fl recover`, which calls `recover`.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nerv_fl.client.outbox import SENT_FILE
from nerv_fl.errors import CheckpointError
from nerv_fl.io.atomic import write_atomically
from nerv_fl.io.checksums import SUM_KEY, has_sum, with_sum
from nerv_fl.server.checkpoint import LATEST, has_state, load_state, state_name, stored_rounds
from nerv_fl.server.integrity import has_header
from nerv_fl.server.run_folder import RunFolder
from nerv_fl.strategy.server_state import FederationState

SPENDING_FILE = "spending.json"
ADMITTED_FILE = "admitted.json"


@dataclass(frozen=True, kw_only=True)
class Recovery:
    """Outcome of a recovery.

    Attributes:
        round_number: The round that the run goes on after.
        rounds_lost: Recorded rounds after it, which the run will repeat.
        replaced: Files that were written again, cut or removed, relative to the run folder.
        kept: Folder with what they were; None if there was nothing to keep.
    """

    round_number: int
    rounds_lost: int
    replaced: tuple[str, ...]
    kept: Path | None


@dataclass
class _Damaged:
    """The folder in which replaced files are kept; it is created with the first one."""

    run: RunFolder
    root: Path
    names: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, run: RunFolder) -> "_Damaged":
        numbers = [int(path.name[8:]) for path in run.root.glob("damaged-*") if path.name[8:].isdigit()]
        return cls(run, run.root / f"damaged-{max(numbers, default=0) + 1}")

    def copy(self, path: Path) -> None:
        """Keep a copy of a file that is about to be replaced, if it exists."""
        name = path.relative_to(self.run.root)
        if path.is_file():
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, self.root / name)
        self.names.append(str(name))

    def move(self, path: Path) -> None:
        """Keep a file and remove it from the run."""
        self.copy(path)
        path.unlink(missing_ok=True)


def read_state(folder: RunFolder) -> FederationState | None:
    """Return the state that a run goes on from; None if no round was run yet.

    Raises:
        CheckpointError: If the checkpoint is missing or damaged though rounds were run, naming the remedy.
    """
    if not has_state(folder.checkpoint):
        if _holds_rounds(folder):
            path = folder.checkpoint / LATEST
            raise CheckpointError(
                f"{path} is missing though rounds were run, expected the newest checkpoint's name; {remedy(folder)}"
            )
        return None
    try:
        return load_state(folder.checkpoint)
    except CheckpointError as error:
        raise CheckpointError(f"{error}; {remedy(folder)}") from error


def rounds_done(folder: RunFolder) -> int:
    """Return the number of rounds that a run has finished.

    Raises:
        CheckpointError: As `read_state`.
    """
    state = read_state(folder)
    return 0 if state is None else state.round_number


def require_whole(folder: RunFolder) -> None:
    """Refuse a run folder whose settings, manifest, checkpoint or records are not those that the run wrote.

    Raises:
        CheckpointError: Naming the file and the remedy.
    """
    folder.require_config()
    manifest = folder.read_manifest()
    state = read_state(folder)
    if state is None:
        return
    if "run" not in manifest:
        raise CheckpointError(
            f"{folder.manifest_path} lacks the run's identity though rounds were run, expected the manifest of this "
            "run: restore it from a backup"
        )
    require_records(folder, state.round_number)


def require_records(folder: RunFolder, round_number: int) -> None:
    """Refuse records that lack what the rounds up to one left.

    Raises:
        CheckpointError: Naming the file and the remedy.
    """
    try:
        folder.require_records(round_number)
    except CheckpointError as error:
        raise CheckpointError(f"{error}; {remedy(folder)}") from error


def remedy(folder: RunFolder) -> str:
    """Return what to do about a damaged checkpoint or record, for the end of a message."""
    rounds = whole_rounds(folder)
    if rounds:
        return f"`nerv-fl recover {folder.root}` goes back to round {rounds[-1]}, the newest whole checkpoint"
    return (
        "no checkpoint is left that agrees with the records: restore the file from a backup, or run the recipe again "
        "in another folder"
    )


def whole_rounds(folder: RunFolder) -> list[int]:
    """Return the rounds that a run can go on from: with a whole checkpoint, and whole records until then."""
    return [number for number in stored_rounds(folder.checkpoint) if _is_whole(folder, number)]


def recover(folder: RunFolder, *, round_number: int | None = None) -> Recovery:
    """Restore a run folder to a whole checkpoint, keeping what is replaced; its lock must be held.

    In a simulation the virtual nodes are set back too, so that the repeated rounds have the same results and are
    counted once. Deployed nodes are not: what they have spent stays spent.

    Args:
        folder: The run folder.
        round_number: Round to go back to; the newest possible one if None.

    Raises:
        CheckpointError: If there is no whole checkpoint (of that round), or a lost file has no copy.
    """
    paths = (folder.config_path, folder.manifest_path, folder.copies)
    if not any(path.exists() for path in paths):
        raise CheckpointError(f"{folder.root} holds no run, expected a folder with config.toml and manifest.json")
    damaged = _Damaged.of(folder)
    choices = whole_rounds(folder)
    if not choices and not _holds_rounds(folder) and round_number is None:
        _restore_copies(folder, damaged)
        _forget_state(folder, damaged)
        return _recovery(0, lost=0, damaged=damaged)
    if not choices or (round_number is not None and round_number not in choices):
        wanted = "a round" if round_number is None else f"round {round_number}"
        raise CheckpointError(
            f"{folder.checkpoint} holds whole checkpoints of rounds {choices}, expected {wanted}: restore the damaged "
            "file from a backup, or run the recipe again in another folder"
        )
    spent = _spending_of(folder)
    _restore_copies(folder, damaged)
    chosen = choices[-1] if round_number is None else round_number
    newest = max([chosen, *folder.certificates(), *stored_rounds(folder.checkpoint), _last_recorded(folder)])
    _go_back(folder, chosen, spent=spent, damaged=damaged)
    return _recovery(chosen, lost=newest - chosen, damaged=damaged)


def _recovery(round_number: int, *, lost: int, damaged: _Damaged) -> Recovery:
    return Recovery(
        round_number=round_number,
        rounds_lost=lost,
        replaced=tuple(damaged.names),
        kept=damaged.root if damaged.root.exists() else None,
    )


def _restore_copies(folder: RunFolder, damaged: _Damaged) -> None:
    """Write the settings and the manifest again where they are damaged."""
    for path, is_whole in ((folder.config_path, has_header), (folder.manifest_path, _is_whole_manifest)):
        copy = folder.copies / path.name
        if (path.is_file() and is_whole(path.read_bytes())) or not copy.is_file():
            continue
        data = copy.read_bytes()
        if not is_whole(data):
            raise CheckpointError(f"{path} and {copy} are both damaged, expected one of them whole: restore a backup")
        damaged.copy(path)
        write_atomically(path, data)


def _forget_state(folder: RunFolder, damaged: _Damaged) -> None:
    """Keep aside a damaged state of the bootstrap, before any round: the run then begins with the bootstrap again."""
    if has_state(folder.checkpoint) or stored_rounds(folder.checkpoint):
        for path in sorted(folder.checkpoint.iterdir()):
            damaged.move(path)


def _spending_of(folder: RunFolder) -> dict[Path, dict[str, Any]]:
    """Read what a simulation's nodes have spent, before anything is replaced.

    Raises:
        CheckpointError: If a file is damaged: it cannot be made again.
    """
    tables = {}
    for path in sorted(folder.nodes.glob(f"*/{SPENDING_FILE}")):
        table = _read_object(path)
        if not isinstance(table.get("steps"), dict) or (SUM_KEY in table and not has_sum(table)):
            raise CheckpointError(
                f"{path} is damaged, expected what its node has spent: restore it from a backup, or run the recipe "
                "again in another folder"
            )
        tables[path] = table
    return tables


def _read_object(path: Path) -> dict[str, Any]:
    """Read a JSON object; empty if the file holds none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _is_whole_manifest(data: bytes) -> bool:
    try:
        return has_sum(json.loads(data))
    except (ValueError, AttributeError):
        return False


def _go_back(folder: RunFolder, round_number: int, *, spent: Mapping[Path, dict[str, Any]], damaged: _Damaged) -> None:
    """Make a round the last one; `latest` is written last, so that a recovery cut short is done again."""
    name, latest = state_name(round_number), folder.checkpoint / LATEST
    if latest.is_file() and latest.read_bytes() == name.encode():
        return
    later = {number: path for number, path in folder.certificates().items() if number > round_number}
    for path in (*folder.longer_records(round_number), *later.values()):
        damaged.copy(path)
    for number in stored_rounds(folder.checkpoint):
        for ending in (".json", ".safetensors"):
            path = folder.checkpoint / f"{state_name(number)}{ending}"
            if path.exists() and (number > round_number or not _is_whole(folder, number)):
                damaged.move(path)
    _set_back_nodes(folder, round_number, spent=spent, damaged=damaged)
    folder.cut_after(round_number)
    damaged.copy(latest)
    write_atomically(latest, name.encode())


def _set_back_nodes(
    folder: RunFolder, round_number: int, *, spent: Mapping[Path, dict[str, Any]], damaged: _Damaged
) -> None:
    """Forget later rounds of a simulation's nodes, and what the enclave has admitted since."""
    run = str(folder.read_manifest()["run"])
    admitted = folder.enclave / ADMITTED_FILE
    if admitted.exists():
        damaged.move(admitted)
    for path, table in spent.items():
        later = [key for key in table["steps"] if _round_of(key, run=run) > round_number]
        if later:
            damaged.copy(path)
            steps = {key: value for key, value in table["steps"].items() if key not in later}
            write_atomically(path, json.dumps(with_sum(table | {"steps": steps})).encode())
            sent = path.with_name(SENT_FILE)
            if sent.exists():
                damaged.move(sent)


def _round_of(key: str, *, run: str) -> int:
    name, _, number = key.rpartition("/")
    return int(number) if name == run and number.isdigit() else 0


def _is_whole(folder: RunFolder, round_number: int) -> bool:
    try:
        load_state(folder.checkpoint, round_number)
        folder.require_records(round_number)
    except CheckpointError:
        return False
    return True


def _holds_rounds(folder: RunFolder) -> bool:
    """Return whether a round after the bootstrap left anything; what a crash before the first left does not count."""
    stored = [number for number in stored_rounds(folder.checkpoint) if number > 0]
    paid = folder.ledger_path.exists() and folder.ledger_path.stat().st_size > 0
    return bool(stored or folder.certificates() or paid or _last_recorded(folder) > 0)


def _last_recorded(folder: RunFolder) -> int:
    """Return the number of the last recorded round, counted by lines: the file may be damaged."""
    if not folder.rounds_path.exists():
        return 0
    return max(folder.rounds_path.read_bytes().count(b"\n") - 1, 0)
