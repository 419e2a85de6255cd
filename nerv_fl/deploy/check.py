"""What is wrong with a deployment's folder, or with that of one of its machines, before anything starts."""
from pathlib import Path
def problems_of(folder: Path, *, ports: bool = True) -> list[str]:
    """Return what is wrong, a line each."""
    return []
