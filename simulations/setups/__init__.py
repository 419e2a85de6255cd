"""What a simulation needs before its first round, task by task: the data of every pool, and weights to start from."""
