"""A run folder for each point of a sweep. Points with the same data and bootstrap share both: neither is made twice."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from nerv_fl.config import RunConfig, as_table, flatten
from nerv_fl.errors import CheckpointError
from nerv_fl.records import FINAL_CLOSED
from nerv_fl.server.run_folder import RunFolder
from simulations.prepare import Progress, begin_or_resume, prepare
from simulations.sweep.grid import Point

DATA_DEPENDS_ON: Final = ("seed", "task", "model.", "data.", "bootstrap.", "federation.num_nodes")
"""Settings that ledgers and bootstrap follow from."""

ATTEMPTS: Final = 2
"""On a busy machine Ray may take longer to start than it allows itself; a run goes on with the same bits."""


def shared_folder(root: Path, config: RunConfig) -> RunFolder:
    """Return where the data and the bootstrap of a point stand, which others of the same settings share."""
    facts = {key: value for key, value in flatten(as_table(config)).items() if key.startswith(DATA_DEPENDS_ON)}
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    return RunFolder(root / "shared" / digest[:16])


def share_data(root: Path, point: Point, *, progress: Progress) -> RunFolder:
    """Make a point's data and bootstrap, if no point before it has; return where they stand."""
    folder = shared_folder(root, point.config)
    if "bootstrap" not in folder.read_manifest():
        config = folder.config if folder.config_path.exists() else point.config
        prepare(begin_or_resume(folder.root, config), progress=progress)
    return folder


def point_folder(root: Path, point: Point) -> RunFolder:
    """Return a point's run folder."""
    return RunFolder(root / "points" / point.folder_name)


def is_finished(folder: RunFolder) -> bool:
    """Return whether a run is over: its final pool is open, or stays closed since its model has not changed."""
    manifest = folder.read_manifest()
    return any(manifest.get(key) is not None for key in ("final", FINAL_CLOSED))


def run_point(root: Path, point: Point, *, shared: RunFolder) -> RunFolder:
    """Run a point to its end, or go on with it, in a process of its own.

    Raises:
        ConfigError: If its folder holds a run of other settings.
        CheckpointError: If its process ends without a result.
    """
    folder = begin_or_resume(point_folder(root, point).root, point.config)
    _link(shared, folder)
    log = folder.root / "run.log"
    command = [sys.executable, "-m", "simulations", str(folder.config_path), "--out", str(folder.root), "--resume"]
    status = 0
    for _ in range(ATTEMPTS):
        with log.open("a", encoding="utf-8") as file:
            status = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False).returncode  # noqa: S603
        if not status and is_finished(folder):
            return folder
    raise CheckpointError(f"the run in {folder.root} ended with status {status}, expected 0: {log} says why")


def _link(shared: RunFolder, folder: RunFolder) -> None:
    """Give a run folder the shared files under its own names; a file system without links gets copies."""
    sources = [*sorted((shared.root / "data").glob("*.h5")), shared.bootstrap_path]
    for source in sources:
        target = folder.root / source.relative_to(shared.root)
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            continue
        try:
            os.link(source, target)
        except OSError:
            shutil.copy2(source, target)
