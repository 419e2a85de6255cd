"""Keys: whether each private key belongs to the public one that others know."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from nerv_fl.crypto import SigningKey, VerifyKey, check_evidence
from nerv_fl.deploy.certificates import read_supernode_key, read_supernode_public_key
from nerv_fl.deploy.checks.machines import NodeView, PairView, ServerView, read_text
from nerv_fl.deploy.checks.versions import not_recorded
from nerv_fl.deploy.diagnostics import MADE_BY_INIT, RESTORE, Finding, Severity, finding_of
from nerv_fl.enclave.identity import (
    EVIDENCE_FILE,
    VENDOR_KEY_FILE,
    VENDOR_ROOT_FILE,
    EnclaveIdentity,
    own_code_hash,
    read_evidence,
    read_vendor_root,
)
from nerv_fl.errors import SealError
from nerv_fl.server.roster import active

_RENEW: Final = "restore the pair, or make a new one with `nerv-fl deploy renew --node N` and call register.sh"
_SIGNING: Final = (
    "restore the folder state/ of this node: its balance, reputation and spending ledger belong to that key. If the "
    "key is lost, remove the node and add another"
)


def supernode_key_is_of_its_public_key(node: NodeView) -> Iterator[Finding]:
    """Find a SuperNode's private key that does not belong to the public one beside it."""
    found = read_supernode_key(node.machine.key)
    yield from _equal(node.machine.key, found, expected=node.machine.public_key, remedy=_RENEW)


def signing_key_is_the_nodes(node: NodeView) -> Iterator[Finding]:
    """Find a signing key that is not the one this node was registered with."""
    path, public = node.machine.signing_key(node.number), node.machine.signing_public_key(node.number)
    if not path.exists():
        return
    signs = SigningKey.load_private(path).verify_key
    if not public.exists():
        yield not_recorded(public, "public signing key")
    elif (expected := _verify_key(public)) != signs:
        yield Finding(
            what=str(path),
            value=f"has the public key {signs.fingerprint}",
            expected=f"{expected.fingerprint}, which {public} holds",
            remedy=_SIGNING,
        )


def vendor_root_is_a_key(node: NodeView) -> Iterator[Finding]:
    """Find a pinned vendor root that is no public key."""
    _verify_key(node.machine.vendor_root)
    yield from ()


def code_hash_is_of_this_version(node: NodeView) -> Iterator[Finding]:
    """Find a pinned hash of other code than the installed nerv_fl."""
    pinned, own = read_text(node.machine.code_hash).strip(), own_code_hash()
    if pinned != own:
        yield Finding(
            what=str(node.machine.code_hash),
            value=f"is {pinned[:12]!r}",
            expected=f"{own[:12]!r}, this nerv_fl's",
            remedy="install the version of nerv_fl that the server runs, or restore the file",
        )


def enclaves_keys_are_those_of_its_evidence(server: ServerView) -> Iterator[Finding]:
    """Find enclave keys that are missing, or are not those that its evidence names; sealed ones are not unsealed."""
    folder, place = server.run.enclave, server.config.enclave.place
    if not (folder / EVIDENCE_FILE).exists():
        if place == "here" or not (folder / VENDOR_KEY_FILE).exists():
            yield _missing(folder / EVIDENCE_FILE)
        return
    if place != "here":
        read_evidence(folder)
        return
    EnclaveIdentity.load(folder)


def evidence_is_signed_by_the_vendor_root(server: ServerView) -> Iterator[Finding]:
    """Find evidence of another run, or that the vendor root beside it did not sign."""
    path, root = server.run.enclave / EVIDENCE_FILE, server.run.enclave / VENDOR_ROOT_FILE
    if not root.exists():
        yield _missing(root)
    elif path.exists():
        try:
            check_evidence(read_text(path), vendor_root=read_vendor_root(root), run=str(server.manifest.get("run")))
        except SealError as error:
            yield finding_of(SealError(f"{path}: {error}"))


def each_node_has_keys_of_its_own(server: ServerView) -> Iterator[Finding]:
    """Find two nodes with one signing key on the roster, or with one key for their SuperNodes."""
    signing: dict[str, int] = {}
    transport: dict[str, int] = {}
    for number, member in sorted(active(server.members).items()):
        if (other := signing.setdefault(member.key.to_text(), number)) != number:
            yield Finding(
                what=f"{server.run.roster_path}: key of node {number}",
                value=f"is that of node {other} too",
                expected="another",
                remedy=RESTORE,
            )
        path = server.machine.supernode(number)
        if (other := transport.setdefault(read_supernode_public_key(path), number)) != number:
            yield Finding(
                what=str(path),
                value=f"is the key of {server.machine.supernode(other)} too",
                expected="another",
                remedy=_RENEW,
            )


def supernodes_are_registered_with_their_keys(server: ServerView) -> Iterator[Finding]:
    """Find a SuperNode that the SuperLink knows by another key than the one in supernodes/, or not at all."""
    database = server.machine.database
    if not database.exists():
        return
    try:
        registered = registered_keys(database)
    except sqlite3.DatabaseError:  # found by the check of the database
        return
    for number in sorted(active(server.members)):
        path = server.machine.supernode(number)
        if read_supernode_public_key(path) in registered:
            continue
        noted = path.with_suffix(".json").exists()
        yield Finding(
            what=str(path),
            value="is not among the keys that the SuperLink has registered",
            expected=f"one of the {len(registered)} in {database}",
            remedy=f"delete {path.with_suffix('.json')} and call register.sh" if noted else "call register.sh",
            severity=Severity.ERROR if noted else Severity.WARNING,
        )


def registered_keys(database: Path) -> set[str]:
    """Return the SuperNodes' public keys in the SuperLink's database, in OpenSSH's form.

    Raises:
        sqlite3.DatabaseError: If it is damaged.
    """
    # Without a write-ahead log nobody has the database open, and SQLite must not make one to read it.
    mode = "mode=ro" if Path(f"{database}-wal").exists() else "mode=ro&immutable=1"
    with closing(sqlite3.connect(f"{database.resolve().as_uri()}?{mode}", uri=True)) as connection:
        if (state := connection.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
            raise sqlite3.DatabaseError(state)
        rows = connection.execute("SELECT public_key FROM node WHERE status != 'unregistered'").fetchall()
    form = (Encoding.OpenSSH, PublicFormat.OpenSSH)
    return {load_pem_public_key(bytes(key)).public_bytes(*form).decode() for (key,) in rows if key}


def server_knows_the_supernodes_key(pair: PairView) -> Iterator[Finding]:
    """Find a node whose SuperNode has another key than the one on the server."""
    path = pair.node.machine.public_key
    yield from _equal(
        path, read_supernode_public_key(path), expected=pair.server.machine.supernode(pair.number), remedy=_RENEW
    )


def roster_has_the_nodes_signing_key(pair: PairView) -> Iterator[Finding]:
    """Find a node that signs with another key than the one on the roster."""
    machine, listed = pair.node.machine, pair.server.members.get(pair.number)
    path, public = machine.signing_key(pair.number), machine.signing_public_key(pair.number)
    if not path.exists():  # found by the check of private files
        return
    # Another private key than the public one is found on the node's machine.
    signs = _verify_key(public) if public.exists() else SigningKey.load_private(path).verify_key
    if listed is not None and listed.key != signs:
        yield Finding(
            what=str(path),
            value=f"has the public key {signs.fingerprint}",
            expected=f"{listed.key.fingerprint}, node {pair.number}'s in {pair.server.run.roster_path}",
            remedy=_SIGNING,
        )


def node_pins_the_servers_vendor_root(pair: PairView) -> Iterator[Finding]:
    """Find a node that pins another vendor root than the server's enclave has."""
    path, root = pair.node.machine.vendor_root, pair.server.run.enclave / VENDOR_ROOT_FILE
    found, expected = read_text(path), read_text(root)
    if found != expected:
        yield Finding(
            what=str(path), value=f"is {_short(found)}", expected=f"{_short(expected)} as in {root}", remedy="copy that"
        )


def _equal(path: Path, found: str, *, expected: Path, remedy: str) -> Iterator[Finding]:
    known = read_supernode_public_key(expected)
    if found != known:
        yield Finding(
            what=str(path), value=f"is {_short(found)}", expected=f"{_short(known)} as in {expected}", remedy=remedy
        )


def _verify_key(path: Path) -> VerifyKey:
    try:
        return VerifyKey.from_text(read_text(path))
    except SealError as error:
        raise SealError(f"{path}: {error}") from error


def _missing(path: Path) -> Finding:
    return Finding(what=str(path), value="does not exist", expected=MADE_BY_INIT, remedy=RESTORE)


def _short(text: str) -> str:
    shown = repr(text)
    return shown if len(shown) <= 80 else f"{shown[:40]}...{shown[-20:]}"  # noqa: PLR2004 (a line's worth)
