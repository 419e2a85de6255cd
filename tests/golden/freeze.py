"""Write the golden files again: `python -m tests.golden.freeze [help] [settings] [results]`.

`help` and `settings` follow the product: freeze them with any change of theirs, and read the difference. `results` may
change only where results are meant to; the commit then says why. There is a file of results for each vendor of
processors: where results change, freeze them on each, or delete the file that cannot be frozen again.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from tests.golden.environment import fingerprint, pinned_environment
from tests.golden.interface import help_texts, settings

ROOT: Final = Path(__file__).parents[2]
FOLDER: Final = Path(__file__).parent
NAMES: Final = ("help", "settings", "results")


def golden_path(name: str) -> Path:
    """Return the file of a golden."""
    return FOLDER / f"{name}.json"


def read_golden(name: str) -> dict[str, Any]:
    """Return what is frozen."""
    frozen: dict[str, Any] = json.loads(golden_path(name).read_text(encoding="utf-8"))
    return frozen


def read_results(wanted: dict[str, str]) -> tuple[dict[str, Any], bool]:
    """Return the golden results of a fingerprint and True; any others and False if there are none."""
    frozen = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("results-*.json"))]
    same = [results for results in frozen if results["fingerprint"] == wanted]
    return (same[0], True) if same else (frozen[0], False)


def compute_results(path: Path) -> dict[str, Any]:
    """Compute the results in a process with pinned kernels, write them to a file and return them."""
    command = [sys.executable, "-m", "tests.golden.results", str(path)]
    subprocess.run(command, cwd=ROOT, env=pinned_environment(), check=True)
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def freeze(name: str) -> None:
    """Write one golden file."""
    if name == "results":
        compute_results(golden_path(f"results-{fingerprint()['vendor']}"))
        return
    found = help_texts() if name == "help" else settings()
    golden_path(name).write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> None:
    """Freeze what the command line names; all if it names nothing."""
    wanted = sys.argv[1:] or NAMES
    unknown = sorted(set(wanted) - set(NAMES))
    if unknown:
        raise SystemExit(f"golden is {unknown[0]!r}, expected one of: {', '.join(NAMES)}")
    for name in wanted:
        freeze(name)


if __name__ == "__main__":
    main()
