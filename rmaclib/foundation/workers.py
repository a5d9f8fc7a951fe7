"""Worker processes that end with the process that started them."""

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from concurrent.futures import ProcessPoolExecutor


def worker_pool(count: int) -> ProcessPoolExecutor:
    """Start a pool of worker processes that end with this process, however that ends.

    They are spawned, not forked: a forked process may wait forever for a lock that a thread of this process had.

    Args:
        count: Number of processes, at least 1.

    Returns:
        The pool. End it with ``end_workers`` to stop tasks that are running.
    """
    return ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), initializer=end_with_parent)


def end_workers(pool: ProcessPoolExecutor) -> None:
    """End the processes of a pool at once, without waiting for their tasks."""
    for process in list((pool._processes or {}).values()):  # Python 3.14 is the first with a public way
        process.terminate()
    pool.shutdown(cancel_futures=True)


def end_with_parent() -> None:
    """End this process as soon as the one that started it has ended, also by a kill.

    It is the initializer of a process pool. Without it the workers of a killed process would wait for tasks forever.
    Ctrl-C reaches the workers too: they ignore it, and the process that started them ends them.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_after, args=(parent.sentinel,), name="end-with-parent", daemon=True).start()


def _end_after(sentinel: int) -> None:
    multiprocessing.connection.wait([sentinel])
    os._exit(1)  # no clean-up: no process is left to take a result
