"""Runs a function in one fresh process for each rank."""

import multiprocessing
import time
import traceback
from collections.abc import Callable
from typing import Any

from learner.backend.engine import Rendezvous


def run_ranks(
    function: Callable[..., Any], world_size: int, num_process_groups: int, *args: object, deadline_s: float = 240.0
) -> list[Any]:
    """Results of `function(rank, world_size, addresses, *args)`, by rank, with a rendezvous for each process group that
    the ranks make. A rank that fails or is late fails the test."""
    meetings = [Rendezvous("127.0.0.1") for _ in range(num_process_groups)]
    addresses = [meeting.address for meeting in meetings]
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    processes = [
        context.Process(target=_run, args=(queue, function, rank, world_size, addresses, *args), daemon=True)
        for rank in range(world_size)
    ]
    for process in processes:
        process.start()
    results: dict[int, Any] = {}
    ends_s = time.monotonic() + deadline_s
    try:
        while len(results) < world_size:
            rank, result, error = queue.get(timeout=max(ends_s - time.monotonic(), 0.01))
            assert error is None, f"rank {rank}:\n{error}"
            results[rank] = result
        for process in processes:
            process.join(timeout=30)
    finally:
        for process in processes:
            if process.is_alive():
                process.kill()
    return [results[rank] for rank in range(world_size)]


def _run(queue: Any, function: Callable[..., Any], rank: int, world_size: int, *args: object) -> None:
    try:
        queue.put((rank, function(rank, world_size, *args), None))
    except BaseException:
        # The parent shows it: a traceback on a child's stderr is easily lost.
        queue.put((rank, None, traceback.format_exc()))
        raise
