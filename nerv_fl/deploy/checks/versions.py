"""Versions of Python and of packages on this machine, against those that the server began the run with."""

import platform
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from nerv_fl.deploy.checks.machines import NodeView, ServerView
from nerv_fl.deploy.diagnostics import Finding, Severity

REQUIRED: Final = ("nerv-fl", "torch", "flwr", "opacus")
"""Another version of these trains otherwise, or does not understand the server."""

COMPARED: Final = ("python", *REQUIRED, "numpy", "cryptography", "h5py", "safetensors")


def node_has_the_servers_versions(node: NodeView) -> Iterator[Finding]:
    """Find packages of other versions than the server's, on the node's own machine."""
    if node.here and node.record is not None:
        yield from _differences(node.record.versions, source=node.machine.record)


def server_has_the_runs_versions(server: ServerView) -> Iterator[Finding]:
    """Find packages of other versions than those that the run began with."""
    recorded = server.manifest.get("versions")
    if isinstance(recorded, Mapping):
        versions = {str(name): str(found) for name, found in recorded.items()}
        yield from _differences(versions, source=server.run.manifest_path)
    else:
        yield not_recorded(server.run.manifest_path, "versions")


def record_is_there(node: NodeView) -> Iterator[Finding]:
    """Find a folder in which nothing is recorded, because an older version of nerv_fl made it."""
    if node.record is None:
        yield not_recorded(node.machine.record, "number, data and versions")


def not_recorded(path: Path, what: str) -> Finding:
    """Return the finding that something was not recorded."""
    return Finding(
        what=str(path),
        value=f"has no {what}: not recorded, made by an older version of nerv_fl",
        expected=f"{what} to compare with",
        remedy="none of them is checked; a folder that this version makes has them",
        severity=Severity.WARNING,
    )


def installed_version(name: str) -> str:
    """Return the version of Python or of a package on this machine."""
    try:
        return platform.python_version() if name == "python" else version(name)
    except PackageNotFoundError:
        return "not installed"


def _differences(recorded: Mapping[str, str], *, source: Path) -> Iterator[Finding]:
    for name in COMPARED:
        found, expected = installed_version(name), recorded.get(name)
        if expected is not None and _compared(name, found) != _compared(name, expected):
            yield Finding(
                what=f"version of {name} on this machine",
                value=f"is {found}",
                expected=f"{expected}, the server's, as recorded in {source}",
                remedy="install python " + ".".join(expected.split(".")[:2])
                if name == "python"
                else f"pip install {name}=={_public(expected)}",
                severity=Severity.ERROR if name in REQUIRED else Severity.WARNING,
            )


def _compared(name: str, text: str) -> str:
    """Return what must be equal: Python's patch level and a build's label, such as +cpu, need not be."""
    return ".".join(text.split(".")[:2]) if name == "python" else _public(text)


def _public(text: str) -> str:
    return text.partition("+")[0]
