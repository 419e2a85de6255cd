"""Work of one process on several cores, its results in order: NumPy, hashing and signatures run beside each other."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_ahead(function: Callable[[Item], Result], items: Iterable[Item], *, workers: int) -> Iterator[Result]:
    """Yield function(item) for each item, in order, computed by threads before it is asked for.

    At most `workers + 1` results are ahead of the one that is yielded.

    Args:
        function: Pure; several calls run at once. What one raises is raised in its turn.
        items: Taken as they are needed.
        workers: Threads; with 1 everything happens in this one.

    >>> list(map_ahead(abs, [3, -1, -2], workers=2))
    [3, 1, 2]
    """
    if workers == 1:
        yield from map(function, items)
        return
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(workers) as threads:
        try:
            for item in items:
                waiting.append(threads.submit(function, item))
                if len(waiting) > workers + 1:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
