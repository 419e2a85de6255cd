"""Permissions: who may read what is private, and who may write what a shell sources or a machine trusts."""

import os
import pwd
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from nerv_fl.deploy.checks.machines import FederationView, NodeView, ServerView
from nerv_fl.deploy.diagnostics import MADE_BY_INIT, RESTORE, Finding, Severity
from nerv_fl.enclave.identity import EVIDENCE_FILE, VENDOR_KEY_FILE
from nerv_fl.enclave.key_storage import KEEPING
from nerv_fl.server.run_folder import POOLS

OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH
ROOT: Final = 0

_WHY: Final = "whoever writes here decides what this machine runs and trusts"


def private_files_of_node_are_private(node: NodeView) -> Iterator[Finding]:
    """Find a node's keys or data that are missing, or that others may read."""
    machine = node.machine
    yield from _private(machine.key, machine.data)
    yield from _private(machine.signing_key(node.number))


def private_files_of_server_are_private(server: ServerView) -> Iterator[Finding]:
    """Find the server's keys that are missing, or that others may read."""
    yield from _private(server.machine.key, server.machine.secret)
    enclave, place = server.run.enclave, server.config.enclave.place
    unborn = place != "here" and (enclave / VENDOR_KEY_FILE).exists() and not (enclave / EVIDENCE_FILE).exists()
    names = (VENDOR_KEY_FILE,) if unborn else KEEPING[place].files
    yield from _private(*(enclave / name for name in names))


def held_out_pools_are_private(server: ServerView) -> Iterator[Finding]:
    """Find held-out pools that others may read, through every folder down to them."""
    for pool in POOLS:
        path = server.run.data(pool)
        if path.exists() and _others_reach(path, within=server.machine.root):
            yield Finding(
                what=str(path),
                value="can be read by others than its owner",
                expected="no one else: a node that knew it could fit the gate's data",
                remedy=f"chmod go-rwx {server.machine.root}",
            )


def authoritys_key_is_private(federation: FederationView) -> Iterator[Finding]:
    """Find an authority's private key that is missing, or that others may read."""
    if federation.deployment.ca_key.parent.exists():
        yield from _private(federation.deployment.ca_key)


def only_the_owner_writes_on_node(node: NodeView) -> Iterator[Finding]:
    """Find files that a shell sources, and all others of the machine, that another user may write or owns."""
    yield from _writable(node.machine.root)


def only_the_owner_writes_on_server(server: ServerView) -> Iterator[Finding]:
    """Find files that a shell sources, and all others of the machine, that another user may write or owns."""
    yield from _writable(server.machine.root)


def folders_above_are_the_owners(machine: NodeView | ServerView) -> Iterator[Finding]:
    """Find a folder above the machine's in which another user may put another folder in its place."""
    root = machine.machine.root.resolve()
    owner = root.stat().st_uid
    for folder in root.parents:
        about = folder.stat()
        sticky = bool(about.st_mode & stat.S_ISVTX)  # there each user renames and removes only what is his own
        writable = about.st_mode & OTHERS_WRITE
        if writable and not sticky:
            everybody = bool(writable & stat.S_IWOTH)
            yield Finding(
                what=str(folder),
                value=f"has mode {stat.S_IMODE(about.st_mode):04o}",
                expected=f"no write permission for others: {root} lies below",
                remedy=f"chmod go-w {folder}, or put the machine's folder elsewhere; {_WHY}",
                severity=Severity.ERROR if everybody else Severity.WARNING,
            )
        if about.st_uid not in {owner, ROOT}:
            yield Finding(
                what=str(folder),
                value=f"belongs to {_user(about.st_uid)}",
                expected=f"{_user(owner)} or root: {root} lies below",
                remedy=f"put the machine's folder elsewhere; {_WHY}",
                severity=Severity.WARNING,
            )


def _private(*paths: Path) -> Iterator[Finding]:
    for path in paths:
        about = _stats([path]).get(path)
        if about is None:
            yield Finding(what=str(path), value="does not exist", expected=MADE_BY_INIT, remedy=RESTORE)
        elif (mode := stat.S_IMODE(about.st_mode)) & 0o077:
            yield Finding(
                what=str(path),
                value=f"has mode {mode:04o}",
                expected="0600: others than its owner may read it",
                remedy=f"chmod 600 {path}; if others could log in here, make a new key",
            )


def _writable(root: Path) -> Iterator[Finding]:
    """Find what another user may write, or owns; one finding for all that have one remedy."""
    owner = root.stat().st_uid
    about = _stats([root, *sorted(_below(root))])
    writable = [path for path, found in about.items() if found.st_mode & OTHERS_WRITE]
    foreign = [path for path, found in about.items() if found.st_uid not in {owner, ROOT}]
    if writable:
        yield Finding(
            what=_listed(writable),
            value=f"can be written by others (mode {stat.S_IMODE(about[writable[0]].st_mode):04o})",
            expected="its owner alone",
            remedy=f"chmod -R go-w {root}; {_WHY}",
        )
    if foreign:
        yield Finding(
            what=_listed(foreign),
            value=f"belongs to {_user(about[foreign[0]].st_uid)}",
            expected=f"{_user(owner)}, who owns {root}",
            remedy=f"chown -R {_user(owner)} {root}; {_WHY}",
        )
    if owner != os.geteuid() and os.geteuid() != ROOT:
        yield Finding(
            what=str(root),
            value=f"belongs to {_user(owner)}",
            expected=f"{_user(os.geteuid())}, who runs this check",
            remedy="run the check, and the scripts, as the folder's owner",
            severity=Severity.WARNING,
        )


def _below(root: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(root):  # which passes over a folder that is removed meanwhile
        yield from (Path(folder, name) for name in (*folders, *files))


def _stats(paths: Iterable[Path]) -> dict[Path, os.stat_result]:
    """Return what is known of each path; a machine at work removes files at any time."""
    about = {}
    for path in paths:
        with suppress(FileNotFoundError):
            about[path] = path.stat()
    return about


def _listed(paths: list[Path]) -> str:
    shown = 3
    more = f" and {len(paths) - shown} more" if len(paths) > shown else ""
    return ", ".join(map(str, paths[:shown])) + more


def _others_reach(path: Path, *, within: Path) -> bool:
    """Return whether group or others may read a file, and pass every folder from `within` down to it."""
    folders = [folder for folder in path.parents if folder.is_relative_to(within)]
    for reads, passes in ((stat.S_IRGRP, stat.S_IXGRP), (stat.S_IROTH, stat.S_IXOTH)):
        if path.stat().st_mode & reads and all(folder.stat().st_mode & passes for folder in folders):
            return True
    return False


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"
