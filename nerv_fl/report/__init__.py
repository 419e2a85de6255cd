"""The report of a run: one HTML file that works offline."""

from pathlib import Path

from nerv_fl.io.atomic import write_atomically
from nerv_fl.report.load import load_run
from nerv_fl.report.page import page

__all__ = ["write_report"]


def write_report(run_dir: Path) -> Path:
    """Write `report.html` into a run folder, whole or partial.

    Args:
        run_dir: Folder with config.toml, manifest.json, rounds.jsonl and rewards.csv.

    Returns:
        The path of the report.

    Raises:
        DataError: If a file is missing or is not what a run writes; the message names it.
    """
    path = run_dir / "report.html"
    write_atomically(path, page(load_run(run_dir)).encode())
    return path
