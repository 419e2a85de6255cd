"""CPU time of the processes that a benchmark started, from /proc: those that still live."""

import os
from pathlib import Path

TICK_S = 1 / os.sysconf("SC_CLK_TCK")
UTIME, STIME = 11, 12
"""Places in /proc/PID/stat, counted from the state on (proc(5))."""


def children_cpu_s() -> dict[str, float]:
    """Return the CPU time of all living descendants of this process: Ray's actors, and the rest."""
    parents, seconds, is_actor = {}, {}, {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                stat = (folder / "stat").read_text().rpartition(")")[2].split()
                command = (folder / "cmdline").read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                continue
            pid = int(folder.name)
            parents[pid], is_actor[pid] = int(stat[1]), command.startswith(b"ray::")
            seconds[pid] = TICK_S * (int(stat[UTIME]) + int(stat[STIME]))
    found = {"actors": 0.0, "ray": 0.0}
    for pid, parent in parents.items():
        ancestor = parent
        while ancestor in parents and ancestor != os.getpid():
            ancestor = parents[ancestor]
        if ancestor == os.getpid():
            found["actors" if is_actor[pid] else "ray"] += seconds[pid]
    return found
