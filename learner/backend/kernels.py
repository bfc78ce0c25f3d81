"""Threads, kernels and memory of a rank's process, set once at its start."""

import ctypes
import os

import torch

from learner.config import LearnerConfig

# Numbers of glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4


def fix_threads_and_kernels(config: LearnerConfig, *, world_size: int, deterministic: bool) -> None:
    """For the whole process: threads that ranks of a node share, freed memory that is kept, kernels that always add up
    in one order."""
    num_cores = len(os.sched_getaffinity(0))
    torch.set_num_threads(config.threads or max(1, num_cores // world_size))
    if config.gpus_per_rank == 0:
        _keep_freed_memory()
    if deterministic:
        # Read by cuBLAS when it starts; without it matrix products on a GPU raise in deterministic mode.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        # Nothing here reads memory that it did not write, and filling DeepSpeed's buffers takes longer than a step.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # set when torch loads


def _keep_freed_memory() -> None:
    """Tells glibc's malloc to reuse large blocks rather than to return them to the system after each tensor.

    Otherwise every activation of every micro-batch is mapped, zeroed and page-faulted anew, which takes a large share
    of a step on a CPU. The process keeps its peak. Other C libraries have no such setting and go without.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
