"""The app that `flwr run` sends to every node: two files that import what is installed there, and nothing else.

A node runs no other. So the server chooses neither the code nor the settings by which a node trains.
"""

import hashlib
import io
import struct
import tomllib
import zipfile
import zlib
from pathlib import Path
from typing import Final

MAX_BYTES: Final = 65_536
"""Longest bundle, and longest file in one, that is looked at; the own one has 1.5 kB."""

_UNREADABLE: Final = (
    *(zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError),
    *(NotImplementedError, RuntimeError, ValueError),
)
"""What reading an archive that somebody else wrote may raise."""

_METHODS: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)

_MANIFEST: Final = ".info/CONTENT"
_PYPROJECT: Final = "pyproject.toml"

APP_ID: Final = "nerv/nerv-deployment"
APP_VERSION: Final = "0.1.0"
"""What Flower calls this app."""

FILES: Final = {
    "nerv_node.py": '''\
"""The app of a node: its code is what is installed on its machine, nothing else travels."""

from nerv_fl.deploy.node_app import client_app

__all__ = ["client_app"]
''',
    "nerv_server.py": '''\
"""The app of the server: its code is what is installed on its machine, nothing else travels."""

from nerv_fl.deploy.server_app import server_app

__all__ = ["server_app"]
''',
    _PYPROJECT: """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "nerv-deployment"
version = "0.1.0"
description = "The apps of a deployed federation"
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "nerv"

[tool.flwr.app.components]
serverapp = "nerv_server:server_app"
clientapp = "nerv_node:client_app"

[tool.flwr.app.config]
folder = ""
""",
}
"""The app's files by name."""


def write_app(folder: Path) -> None:
    """Write the app that `flwr run` bundles."""
    folder.mkdir(mode=0o700)
    for name, text in FILES.items():
        (folder / name).write_text(text, encoding="utf-8")


def is_own(bundle: bytes) -> bool:
    """Return whether a bundle holds this app and nothing else.

    Args:
        bundle: What Flower calls a FAB: a ZIP archive, from anyone.
    """
    if len(bundle) > MAX_BYTES:
        return False
    try:
        with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
            return _holds_the_app(archive)
    except _UNREADABLE:
        return False


def _holds_the_app(archive: zipfile.ZipFile) -> bool:
    """Compare names and contents; Flower writes the settings anew, so that they are compared by what they say."""
    entries = archive.infolist()
    if sorted(entry.filename for entry in entries) != sorted([*FILES, _MANIFEST]):
        return False
    if any(entry.file_size > MAX_BYTES or entry.compress_type not in _METHODS for entry in entries):
        return False
    contents = {name: archive.read(name) for name in FILES}
    lines = archive.read(_MANIFEST).decode("utf-8").split("\n")
    if sorted(lines) != sorted(_line(name, content) for name, content in contents.items()):
        return False
    return all(_says(name, contents[name].decode("utf-8"), text) for name, text in FILES.items())


def _says(name: str, found: str, text: str) -> bool:
    return found == text or (name == _PYPROJECT and tomllib.loads(found) == tomllib.loads(text))


def _line(name: str, content: bytes) -> str:
    """Return a file's line of the manifest, as Flower writes it: it hashes whatever path stands there."""
    return f"{name},{hashlib.sha256(content).hexdigest()},{8 * len(content)}"
