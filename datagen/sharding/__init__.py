"""Synthetic load of blockchain shards, minute by minute, for a forecaster of their overload; `score` says how hard."""

from datagen.sharding.generate import GENERATOR, generate_load
from datagen.sharding.verify import LoadReport, verify_load

__all__ = ["GENERATOR", "LoadReport", "generate_load", "verify_load"]
