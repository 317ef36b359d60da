"""Independent cells on several processes, with one bar over the steps that all of them make."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from typing import Any, Protocol

from tqdm import tqdm

Cell = dict[str, Any]
_MOST = 4  # processes, each with its own copy of the records
_counts: Any = None  # a process's view of [steps made, steps to make]


class Advance(Protocol):
    """Tells the bar of steps that were made, and of steps that turn out to be needed besides."""

    def __call__(self, made: int, more: int = 0, /) -> object: ...


Work = Callable[[Cell, Advance], Cell]


def finished(work: Work, cells: list[Cell], steps: int, jobs: int | None = None) -> Iterator[tuple[Cell, Cell]]:
    """Yield (cell, ``work(cell, advance)``) as they are finished; ``steps`` is what they will make, as far as known.

    ``work`` is a function of a module; ``jobs`` is the number of ``processes``. The first cells are begun first. Cells
    that are under way when the caller stops are lost.
    """
    cores, jobs = os.cpu_count() or 1, processes(jobs, len(cells))
    with tqdm(total=steps, unit="step", smoothing=0.02, dynamic_ncols=True, disable=not cells) as bar:
        if jobs == 1:
            yield from _alone(work, cells, bar)
            return
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
            os.environ.setdefault(name, str(max(1, cores // jobs)))  # read by the processes when they start
        context = multiprocessing.get_context("spawn")  # torch has threads, which a fork would not survive
        counts = context.Array("q", [0, steps])
        pool = ProcessPoolExecutor(jobs, context, _begin, (counts,))
        try:
            under_way: dict[Future[Cell], Cell] = {pool.submit(_task, work, cell): cell for cell in cells}
            while under_way:
                done, _ = wait(under_way, timeout=0.5, return_when=FIRST_COMPLETED)
                bar.n, bar.total = counts[:]
                bar.refresh()
                for future in done:
                    yield under_way.pop(future), future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def processes(jobs: int | None, cells: int) -> int:
    """How many processes so many cells get: ``jobs``, by default the cores up to four, but none without a cell."""
    return max(1, min(jobs or min(os.cpu_count() or 1, _MOST), cells))


def _alone(work: Work, cells: list[Cell], bar: Any) -> Iterator[tuple[Cell, Cell]]:
    def advance(made: int, more: int = 0, /) -> None:
        bar.total += more
        bar.update(made)

    for cell in cells:
        yield cell, work(cell, advance)


def _begin(counts: Any) -> None:
    global _counts
    _counts = counts
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # A process that waits for work holds both ends of its pipe, so it would never learn that the parent was killed.
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _task(work: Work, cell: Cell) -> Cell:
    def advance(made: int, more: int = 0, /) -> None:
        with _counts.get_lock():
            _counts[0] += made
            _counts[1] += more

    return work(cell, advance)
