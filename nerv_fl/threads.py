"""One thread for each process: more lose time under Ray, and a sum's bits depend on how many share it."""

import torch
from threadpoolctl import threadpool_limits


def use_one_thread() -> None:
    """Hold this process's torch and BLAS to one thread, from here on."""
    torch.set_num_threads(1)
    threadpool_limits(limits=1)
