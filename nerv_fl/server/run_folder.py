"""The run folder: where everything is, and the appending of a round.

    config.toml  manifest.json  rounds.jsonl  rewards.csv  ledger.jsonl  digests.json  copies/ (see `integrity`)
    certificates/round-N.json  checkpoint/  report.html
    data/        the ledgers: nodes, genesis, search, certify, final
    bootstrap.safetensors  roster.json  enclave/ (mock sealed storage)  nodes/ (each node's own disk)

A round counts once its checkpoint is written, which happens last. What a crash left behind of a later round is cut
off when the run is resumed.
"""

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from nerv_fl.client.host import node_folder
from nerv_fl.config import RunConfig, read_recipe, to_toml
from nerv_fl.crypto import VerifyKey
from nerv_fl.errors import CheckpointError, DataError
from nerv_fl.io.atomic import write_atomically
from nerv_fl.io.checksums import SUM_KEY, has_sum, with_sum
from nerv_fl.io.locks import LOCK_FILE, exclusive
from nerv_fl.records import RewardRow, RoundRecord, read_rewards, read_rounds, rewards_to_csv, to_json
from nerv_fl.rewards import Entry, Head
from nerv_fl.rewards.ledger import check_chain, read_entries, to_line
from nerv_fl.server.integrity import (
    HEADER,
    Prefix,
    cut_to,
    has_header,
    read_digests,
    require_prefix,
    with_header,
    write_digests,
)
from nerv_fl.server.roster import Member, active, read_members, write_members

POOLS = ("search", "certify", "final")


@dataclass(frozen=True)
class RunFolder:
    """Paths of a run folder and the few files that are appended to."""

    root: Path

    @property
    def config_path(self) -> Path:
        """The settings, complete."""
        return self.root / "config.toml"

    @property
    def manifest_path(self) -> Path:
        """Versions, hashes, reference rows, the final pool's result."""
        return self.root / "manifest.json"

    @property
    def rounds_path(self) -> Path:
        """One JSON object a round."""
        return self.root / "rounds.jsonl"

    @property
    def rewards_path(self) -> Path:
        """One line a node and round."""
        return self.root / "rewards.csv"

    @property
    def ledger_path(self) -> Path:
        """The rewards ledger: one entry a movement of money, bound by hashes."""
        return self.root / "ledger.jsonl"

    @property
    def digests_path(self) -> Path:
        """Sizes and checksums of the records by round; see `nerv_fl.server.integrity`."""
        return self.root / "digests.json"

    @property
    def copies(self) -> Path:
        """Second copies of the settings and the manifest."""
        return self.root / "copies"

    @property
    def checkpoint(self) -> Path:
        """The federation's state."""
        return self.root / "checkpoint"

    @property
    def bootstrap_path(self) -> Path:
        """The encoder before round 1."""
        return self.root / "bootstrap.safetensors"

    @property
    def roster_path(self) -> Path:
        """The registered nodes; see `nerv_fl.server.roster`."""
        return self.root / "roster.json"

    @property
    def enclave(self) -> Path:
        """The enclave's keys (sealed if it has its own process), evidence and admission log: a TEE's storage, mock."""
        return self.root / "enclave"

    @property
    def lock(self) -> Path:
        """Lock file of the process that writes here; see `exclusive`."""
        return self.root / LOCK_FILE

    @property
    def stop(self) -> Path:
        """Asks a deployed server to end after the round under way, by being there."""
        return self.root / "stop"

    @property
    def nodes(self) -> Path:
        """The nodes' own folders; see `nerv_fl.client.host.node_folder`."""
        return self.root / "nodes"

    @cached_property
    def config(self) -> RunConfig:
        """The run's settings."""
        return read_recipe(self.config_path)

    def data(self, name: str) -> Path:
        """Return the path of a ledger: "nodes", "genesis" or a pool."""
        return self.root / "data" / f"{name}.h5"

    def certificate_path(self, round_number: int) -> Path:
        """Return the path of a round's certificate."""
        return self.root / "certificates" / f"round-{round_number}.json"

    def exclusive(self, *, patience_s: float = 0.0) -> AbstractContextManager[None]:
        """Return a context in which no other process writes here; readers need none.

        Args:
            patience_s: Time that another writer gets to end, seconds.

        Raises:
            CheckpointError: On entry, if another process writes here, naming it.
        """
        return exclusive(self.lock, written=self.root, patience_s=patience_s)

    def write_config(self, config: RunConfig) -> None:
        """Write the settings; this makes the folder a run's."""
        self.root.mkdir(parents=True, exist_ok=True)
        self._write_twice(self.config_path, with_header(to_toml(config)).encode())

    def read_manifest(self) -> dict[str, Any]:
        """Read the manifest; empty if there is none yet.

        Raises:
            CheckpointError: If it is damaged, or lost.
        """
        path = self.manifest_path
        if not path.exists():
            if (self.copies / path.name).exists():
                raise CheckpointError(f"{path} is missing, expected the manifest of this run: {self.remedy(path)}")
            return {}
        try:
            manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise CheckpointError(f"{path} is not JSON: {error}; {self.remedy(path)}") from error
        if SUM_KEY in manifest and not has_sum(manifest):
            raise CheckpointError(f"{path} was changed, expected what the run wrote: {self.remedy(path)}")
        return {key: value for key, value in manifest.items() if key != SUM_KEY}

    def update_manifest(self, **facts: object) -> None:
        """Add facts to the manifest, or replace them."""
        manifest = with_sum(self.read_manifest() | facts)
        self._write_twice(self.manifest_path, (json.dumps(manifest, indent=1, allow_nan=False) + "\n").encode())

    def require_config(self) -> None:
        """Refuse settings that are not those the run wrote last.

        Raises:
            CheckpointError: If the file is missing though a copy of it exists, or was changed.
        """
        path = self.config_path
        has_copy = (self.copies / path.name).exists()
        if not path.exists():
            if has_copy:
                raise CheckpointError(f"{path} is missing, expected the settings of this run: {self.remedy(path)}")
            return
        data = path.read_bytes()
        if (has_copy or data.startswith(HEADER.encode())) and not has_header(data):
            raise CheckpointError(f"{path} was changed, expected what the run wrote: {self.remedy(path)}")

    def remedy(self, path: Path) -> str:
        """Return what to do about a damaged settings file or manifest."""
        return f"`nerv-fl recover {self.root}` restores it from {self.copies / path.name}"

    def _write_twice(self, path: Path, data: bytes) -> None:
        """Write a file and then its copy: a crash between them leaves an older copy, which the next write replaces."""
        write_atomically(path, data)
        self.copies.mkdir(exist_ok=True)
        write_atomically(self.copies / path.name, data)

    def write_roster(
        self,
        roster: dict[int, VerifyKey],
        *,
        weights: dict[int, float],
        roles: Mapping[int, tuple[str, int]] | None = None,
    ) -> None:
        """Write the registered nodes' public keys and weights, and which attacks are played, and for whom.

        No decision reads the roles: they are for the report.
        """
        members = {
            node: Member(key=key, weight=weights[node], role=(roles or {}).get(node)) for node, key in roster.items()
        }
        write_members(self.roster_path, members)

    def read_roster(self) -> dict[int, VerifyKey]:
        """Read the public keys of the registered nodes that have not left.

        Raises:
            DataError: If there is no readable roster.
        """
        return {node: member.key for node, member in active(read_members(self.roster_path)).items()}

    def read_weights(self) -> dict[int, float]:
        """Read their weights in the aggregate: public constants, their numbers of records.

        Raises:
            DataError: If there is no readable roster.
        """
        return {node: member.weight for node, member in active(read_members(self.roster_path)).items()}

    def node(self, number: int) -> Path:
        """Return one node's folder."""
        return node_folder(self.nodes, number)

    def append(
        self, record: RoundRecord, rows: Sequence[RewardRow], *, entries: Sequence[Entry], certificate: str | None
    ) -> None:
        """Append what a round leaves; the checkpoint that makes it count comes after."""
        if certificate is not None:
            path = self.certificate_path(record.round)
            path.parent.mkdir(exist_ok=True)
            write_atomically(path, certificate.encode())
        is_new = not self.rewards_path.exists() or self.rewards_path.stat().st_size == 0
        _append(self.rewards_path, rewards_to_csv(rows, header=is_new))
        _append(self.ledger_path, "".join(to_line(entry) for entry in entries))
        _append(self.rounds_path, to_json(record) + "\n")
        write_digests(self.digests_path, record.round, self._records)

    def cut_after(self, round_number: int) -> None:
        """Remove what a crash left of rounds after `round_number`, a half-written last line included.

        Raises:
            CheckpointError: If a record does not hold what the rounds until then left; nothing is then removed.
        """
        sizes = self.require_records(round_number)
        for number, path in self.certificates().items():
            if number > round_number:
                path.unlink()
        for name, item in sizes.items():
            cut_to(self.root / name, item.size_bytes)
        if not sizes:
            self._cut_lines_after(round_number)

    def certificates(self) -> dict[int, Path]:
        """Return the certificates' paths by round."""
        paths = (self.root / "certificates").glob("round-*.json")
        return {int(path.stem.removeprefix("round-")): path for path in paths}

    def require_records(self, round_number: int) -> Mapping[str, Prefix]:
        """Check that the records hold what all rounds up to one left.

        Returns:
            The expected digests by file name; empty if none were written: an earlier version wrote none.

        Raises:
            CheckpointError: Naming the file that is missing, was cut short, or was changed.
        """
        expected = read_digests(self.digests_path).get(round_number, {})
        for name, item in expected.items():
            require_prefix(self.root / name, item, round_number=round_number)
        if not expected and round_number > 0:
            self._require_lines(round_number)
        return expected

    def longer_records(self, round_number: int) -> list[Path]:
        """Return the records that hold more than the rounds up to one left, or may do so."""
        sizes = read_digests(self.digests_path).get(round_number, {})
        return [
            path
            for name, path in self._records.items()
            if path.exists() and (name not in sizes or path.stat().st_size > sizes[name].size_bytes)
        ]

    def _require_lines(self, round_number: int) -> None:
        """Check records without digests: that their lines can be read, and that no round is missing."""
        found = set(_rounds_of_lines(self.rounds_path))
        if missing := sorted(set(range(round_number + 1)) - found):
            raise CheckpointError(f"{self.rounds_path} lacks round {missing[0]}, expected rounds 0 to {round_number}")
        _rounds_of_lines(self.ledger_path)

    @property
    def _records(self) -> Mapping[str, Path]:
        return {path.name: path for path in (self.rounds_path, self.rewards_path, self.ledger_path)}

    def _cut_lines_after(self, round_number: int) -> None:
        if self.rounds_path.exists():
            lines = [line for line in _whole_lines(self.rounds_path) if json.loads(line)["round"] <= round_number]
            write_atomically(self.rounds_path, "".join(lines).encode())
        if self.ledger_path.exists():
            lines = [line for line in _whole_lines(self.ledger_path) if json.loads(line)["round"] <= round_number]
            write_atomically(self.ledger_path, "".join(lines).encode())
        if self.rewards_path.exists():
            lines = _whole_lines(self.rewards_path) or [rewards_to_csv([], header=True)]
            write_atomically(self.rewards_path, "".join(lines).encode())
            rows = [row for row in read_rewards(self.rewards_path) if row.round <= round_number]
            write_atomically(self.rewards_path, rewards_to_csv(rows, header=True).encode())

    def read_ledger(self) -> list[Entry]:
        """Read the rewards ledger; empty if nothing moved yet.

        Raises:
            DataError: If a line is not an entry.
        """
        text = self.ledger_path.read_text(encoding="utf-8") if self.ledger_path.exists() else ""
        return read_entries(text, source=str(self.ledger_path))

    def check_ledger(self, *, head: Head) -> None:
        """Refuse a rewards ledger that does not end where the checkpoint says.

        Raises:
            DataError: Naming what is wrong.
        """
        found = check_chain(self.read_ledger(), run=str(self.read_manifest()["run"]), source=str(self.ledger_path))
        if found != head:
            raise DataError(
                f"{self.ledger_path} ends after {found.num_entries} entries with hash {found.hash[:12]}, "
                f"expected {head.num_entries} with {head.hash[:12]}: the checkpoint holds that"
            )

    def rounds(self) -> list[RoundRecord]:
        """Read every record; empty if there is none yet."""
        return read_rounds(self.rounds_path) if self.rounds_path.exists() else []


def _append(path: Path, text: str) -> None:
    """Append text and see it to the disk: the checkpoint that comes after must not outlive it."""
    with path.open("a", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _rounds_of_lines(path: Path) -> list[int]:
    """Return the round of each whole line of a JSON lines file; none if it is missing.

    Raises:
        CheckpointError: If a line is no JSON object with a round.
    """
    if not path.exists():
        return []
    try:
        return [int(json.loads(line)["round"]) for line in _whole_lines(path)]
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} holds a line that cannot be read ({error}), expected a round's record"
        ) from error


def _whole_lines(path: Path) -> list[str]:
    return [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]
