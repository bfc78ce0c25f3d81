"""Measures ratios and writes docs/benchmarks.json and docs/benchmarks.md; on a machine that does nothing else.

python -m tests.benchmarks.suite                      # all, some ten minutes; `make bench`
python -m tests.benchmarks.suite --only learner.step  # one
python -m tests.benchmarks.suite --check              # against what is stored; `make bench-check`
"""

import argparse
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from cluster.fleet.environment import keep_memory
from tests.benchmarks import controlling, learning, overlapping, sampling, syncing
from tests.benchmarks.results import Result, read, write

BENCHMARKS: Mapping[str, Callable[[Path], list[Result]]] = {
    "async.wall.1": overlapping.over_longest_stage,
    "controller.engines": controlling.engines,
    "controller.hold": controlling.hold,
    "learner.flops": learning.useful_flops,
    "learner.packed": learning.packed_over_padded,
    "learner.prompt_once": learning.prompt_once,
    "learner.logprob_memory": learning.logprob_memory,
    "learner.step": learning.step_over_bare_loop,
    "streaming.wall": overlapping.streaming_over_longest_stage,
    "sampler.overhead": sampling.over_bare_engine,
    "sync.copy": syncing.over_copy,
    "sync.delta": syncing.delta_over_dense,
}
"""By the name of the first figure of each."""
SAMPLER = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_LOGGING_LEVEL": "ERROR", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}


def environment_of(name: str) -> dict[str, str]:
    """As an actor of the role has it."""
    role = name.partition(".")[0]
    return keep_memory() if role == "learner" else SAMPLER if role == "sampler" else {}


def run(name: str) -> list[Result]:
    """One benchmark, in this process."""
    with tempfile.TemporaryDirectory() as folder:
        return BENCHMARKS[name](Path(folder))


def run_alone(name: str) -> list[Result]:
    """One benchmark, in a process of its own: some set what holds for all of it."""
    before = dict(os.environ)
    os.environ.update(environment_of(name))
    try:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            return pool.submit(run, name).result()
    finally:
        os.environ.clear()
        os.environ.update(before)


def told(result: Result) -> str:
    """A line."""
    met = {None: "", True: ", met", False: ", NOT met"}[result.is_met]
    interval = f"{result.low:.3g} to {result.high:.3g}"
    return f"{result.name}: {result.ratio:.3g} ({interval}), {result.bound}{met}  {result.note}"


def worse(results: Sequence[Result], stored: Mapping[str, Result]) -> list[str]:
    """A sentence for each result that is worse than what is stored, or has nothing to be held against."""
    found = [f"{result.name} is not stored: run make bench first" for result in results if result.name not in stored]
    return found + [
        f"{result.name} is worse: {result.ratio:.3g}, stored {stored[result.name].ratio:.3g}"
        for result in results
        if result.name in stored and result.is_worse_than(stored[result.name])
    ]


def main() -> int:
    """1 where `--check` found a ratio that is worse than the stored one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=sorted(BENCHMARKS), default=sorted(BENCHMARKS))
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    stored, results = read(), list[Result]()
    for name in arguments.only:
        found = run_alone(name)
        results += found
        print(*(told(result) for result in found), sep="\n", flush=True)
        if not arguments.check:
            write(found)
    sentences = worse(results, stored) if arguments.check else []
    print(*sentences, sep="\n", end="\n" if sentences else "", file=sys.stderr)
    return 1 if sentences else 0


if __name__ == "__main__":
    sys.exit(main())
