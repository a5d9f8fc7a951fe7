"""Worker processes that don't outlive the process that started them."""

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from concurrent.futures import ProcessPoolExecutor


def worker_pool(count: int) -> ProcessPoolExecutor:
    """Processes for tasks, spawned and not forked: a forked one may hang on a lock that a thread of this process held.

    They end with this process, however that ends; see end_workers.
    """
    return ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), initializer=end_with_parent)


def end_workers(pool: ProcessPoolExecutor) -> None:
    """End the processes of a pool at once: nobody waits for what they are at."""
    for process in list((pool._processes or {}).values()):  # Python 3.14 has the first public way
        process.terminate()
    pool.shutdown(cancel_futures=True)


def end_with_parent() -> None:
    """End this process as soon as the one that started it is gone, however that ended: by a kill, too.

    The initializer of a ProcessPoolExecutor; without it, workers of a killed process wait for tasks for ever. A Ctrl-C
    reaches them as well as the process that started them; only that one answers it, and ends them.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_after, args=(parent.sentinel,), name="end-with-parent", daemon=True).start()


def _end_after(sentinel: int) -> None:
    multiprocessing.connection.wait([sentinel])
    os._exit(1)  # no clean-up: nobody is left to take a result
