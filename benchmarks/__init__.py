"""What the project's own parts cost, each beside a named baseline measured in the same run."""
