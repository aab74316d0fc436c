"""Reads and prepares the pictures of the next batches in threads while the model computes.

Between the files or rows and `Classifier`; `predict.py` and `evaluate_cls.py` read through it.
"""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import torch

Item = TypeVar("Item")
Read = TypeVar("Read")

_MOST_THREADS = 16
"""More of them wait for Python's lock and for the disk."""


def read_ahead(
    read: Callable[[Item], Read], items: Iterable[Item], batch_size: int, threads: int | None = None
) -> Generator[list[Read], None, None]:
    """Batches of what `read` makes of items, in their order.

    At most a batch and two items a thread are read beside the batch that the caller has. Close the iterator
    (contextlib.closing) where it may not be read to its end: what has begun is finished, the rest is dropped.

    Args:
        read: called in threads, so it must not change what they share; what it raises is raised here, when
            the item's turn comes. Decoders and torch let other threads run meanwhile.
        items: what to read.
        batch_size: results at a time; the last batch may be shorter.
        threads: None takes one a core, 16 at most.
    """
    threads = threads or min(_MOST_THREADS, os.cpu_count() or 1)
    source = iter(items)
    # One thread of torch's own in each: they would start a team of threads each to resize one picture.
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    try:
        waiting: deque[Future[Read]] = deque(
            pool.submit(read, item) for item in islice(source, batch_size + 2 * threads)
        )
        while waiting:
            batch: list[Read] = []
            while waiting and len(batch) < batch_size:
                batch.append(waiting.popleft().result())
                waiting.extend(pool.submit(read, item) for item in islice(source, 1))
            yield batch
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(torch.get_num_threads())  # the last call is what threads to come begin with
