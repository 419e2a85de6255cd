"""The number under which the SuperLink knows a SuperNode's key, for `register.sh` where its own note was lost.

Flower registers a key once, and its commands list SuperNodes without their keys: only the database has both.

    python -m nerv_fl.deploy.registered DATABASE PUBLIC_KEY
"""

import json
import sqlite3
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from nerv_fl.deploy.certificates import read_supernode_public_key
from nerv_fl.errors import SealError


def registered_number(database: Path, key: str) -> int | None:
    """Return the number of the SuperNode that is registered with a key in OpenSSH's form, None if there is none.

    Raises:
        sqlite3.Error: If the database cannot be read.
    """
    with closing(sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)) as connection:
        rows = connection.execute("SELECT node_id, public_key FROM node WHERE status != 'unregistered'").fetchall()
    for number, found in rows:
        if found and load_pem_public_key(bytes(found)).public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH) == (
            key.encode()
        ):
            return int(number) % 2**64  # Flower's numbers have no sign, SQLite's do
    return None


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the note that `register.sh` keeps of a registered key."""
    database, path = map(Path, sys.argv[1:] if arguments is None else arguments)
    try:
        number = registered_number(database, read_supernode_public_key(path))
    except (SealError, sqlite3.Error) as error:
        sys.exit(f"{error}: no note of {path} can be made from {database}")
    if number is None:
        sys.exit(f"{path} is not in {database}, expected a registered key: restart superlink.sh in this folder")
    sys.stdout.write(json.dumps({"success": True, "node-id": number}) + "\n")


if __name__ == "__main__":
    main()
