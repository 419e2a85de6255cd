"""A recipe over a grid of settings and seeds: what each setting is worth, with intervals, at a fixed epsilon.

grid     the points: settings x seeds, each node's data sized so that no point spends more than the base recipe
points   a run folder for each point; those with the same data share it, and the bootstrap
central  what central training without DP makes of as many samples: the measure to be compared with
results  what a run came to, and means over seeds with t intervals
tables   CSV, JSON and Markdown
plot     the picture
sweep    all of it, and going on after a kill
"""

from simulations.sweep.grid import Point, parse_axes, plan
from simulations.sweep.results import Outcome, Setting
from simulations.sweep.sweep import Sweep, run_sweep

__all__ = ["Outcome", "Point", "Setting", "Sweep", "parse_axes", "plan", "run_sweep"]
