"""The console script `nerv-fl`: parses, calls, prints."""

from nerv_fl.cli.main import main

__all__ = ["main"]
