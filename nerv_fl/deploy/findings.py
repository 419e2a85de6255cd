"""Checks of single things, each of which adds a line to a list instead of stopping at the first."""

import ipaddress
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TypeVar

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import Certificate

from nerv_fl.config import RunConfig, as_table, flatten, read_recipe
from nerv_fl.deploy.certificates import LOOPBACK, names_of, read_certificate, read_key, require_issued_by
from nerv_fl.errors import ConfigError, DataError, NervError
from nerv_fl.tasks.known import make_task
from nerv_fl.tasks.start import Constants

T = TypeVar("T")

THE_SERVERS_OWN: Final = ("federation.num_nodes", "federation.cohort_size", "simulation.blocks")
"""Settings that change when a node joins or leaves; a node does nothing with them."""


class Findings:
    """What is wrong, in the order found, a line each."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def add(self, line: str) -> None:
        """Add a line, once."""
        line = " ".join(line.split())
        if line not in self.lines:
            self.lines.append(line)

    @contextmanager
    def note(self) -> Iterator[None]:
        """Add what goes wrong inside as a line."""
        try:
            yield
        except NervError as error:
            self.add(str(error))
        except OSError as error:
            self.add(f"{error.filename}: {error.strerror}, expected a readable file")

    def equal(self, path: Path, found: T | None, *, expected: T | None, of: Path) -> None:
        """Add a line if two things that could be read differ."""
        if found is not None and expected is not None and found != expected:
            self.add(f"{path} is {_short(found)}, expected {_short(expected)} as in {of}")

    def exists(self, *paths: Path) -> None:
        """Add a line for each file or folder that is missing."""
        for path in paths:
            if not path.exists():
                self.add(f"{path} does not exist, expected what `nerv-fl deploy init` made")

    def private(self, *paths: Path) -> None:
        """Add a line for each file that is missing, or that others than its owner may read or write."""
        self.exists(*paths)
        for path in filter(Path.exists, paths):
            mode = stat.S_IMODE(path.stat().st_mode)
            if mode & 0o077:
                self.add(f"{path} has mode {mode:04o}, expected 0600: others than its owner may read it")

    def port_free(self, path: Path, name: str, *, host: str, port: int) -> None:
        """Add a line if a port cannot be listened on."""
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
        except OSError as error:
            self.add(f"{path}: {name} is {port} on {host}, expected one that is free ({error.strerror})")

    def config(self, path: Path) -> RunConfig | None:
        """Return a machine's settings, or None with a line for what is wrong."""
        config = None
        with self.note():
            try:
                config = read_recipe(path)
            except NervError as error:
                self.add(f"{path}: {error}")
        if config is None:
            return None
        for name, section in (("adversaries", config.adversaries), ("faults", config.faults)):
            for key, value in flatten(as_table(section)).items():
                if section.any and value != flatten(as_table(type(section)()))[key]:
                    self.add(f"{path}: {name}.{key} is {value}, expected none outside a simulation")
        try:
            config.privacy.require_protocol()
        except ConfigError as error:
            self.add(f"{path}: {error}")
        return config

    def same_config(self, path: Path, found: RunConfig | None, *, expected: RunConfig | None, of: Path) -> None:
        """Add a line for each setting that differs between two machines."""
        if found is None or expected is None:
            return
        ours, theirs = flatten(as_table(found)), flatten(as_table(expected))
        for key, value in ours.items():
            if value != theirs[key] and key not in THE_SERVERS_OWN:
                self.add(f"{path}: {key} is {value!r}, expected {theirs[key]!r} as in {of}")

    def data(self, path: Path, config: RunConfig, *, constants: Constants, chains: int) -> None:
        """Add a line if a data file does not fit the settings."""
        if not path.exists():
            self.exists(path)
            return
        with self.note():
            task = make_task(config, constants)
            data = task.open(path)
            size = task.size_of(data)
            data.close()
            if (size.chains, size.steps) != (chains, config.data.steps):
                raise DataError(
                    f"{path} holds {size.chains} chains of {size.steps} steps, expected {chains} of {config.data.steps}"
                )

    def certificate(self, path: Path, *, key: Path, authority: Path, host: str | None) -> None:
        """Add a line for whatever is wrong with a server's certificate and its key."""
        with self.note():
            certificate = read_certificate(path)
            self._in_date(certificate, path=path)
            names = names_of(certificate)
            for wanted in filter(None, (host, LOOPBACK)):
                if _plain(wanted) not in names:
                    self.add(f"{path} is for {', '.join(names)}, expected {wanted} among them")
            with self.note():
                require_issued_by(certificate, read_certificate(authority), path=path)
            form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
            if key.exists() and read_key(key).public_key().public_bytes(*form) != certificate.public_key().public_bytes(
                *form
            ):
                self.add(f"{key} is another key, expected that of {path}")

    def authority(self, path: Path) -> None:
        """Add a line if an authority's certificate cannot be read or is out of date."""
        with self.note():
            self._in_date(read_certificate(path), path=path)

    def _in_date(self, certificate: Certificate, *, path: Path) -> None:
        begins, ends, now = certificate.not_valid_before_utc, certificate.not_valid_after_utc, datetime.now(UTC)
        if not begins <= now <= ends:
            self.add(f"{path} is valid from {begins:%Y-%m-%d} to {ends:%Y-%m-%d}, expected {now:%Y-%m-%d} within")


def _plain(host: str) -> str:
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return host


def _short(value: object) -> str:
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 80 else f"{text[:40]}...{text[-20:]}"  # noqa: PLR2004 (a line's worth)
