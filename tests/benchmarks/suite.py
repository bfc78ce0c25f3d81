"""Measures ratios and writes docs/benchmarks.json and docs/benchmarks.md; on a machine that does nothing else.

python -m tests.benchmarks.suite                      # all, a few minutes; `make bench`
python -m tests.benchmarks.suite --only learner.step  # one
python -m tests.benchmarks.suite --check              # against what is stored; `make bench-check`
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.benchmarks import controlling, learning, sampling, syncing
from tests.benchmarks.results import Result, read, write

BENCHMARKS: Mapping[str, Callable[[Path], list[Result]]] = {
    "controller.engines": controlling.engines,
    "controller.hold": controlling.hold,
    "learner.flops": learning.useful_flops,
    "learner.packed": learning.packed_over_padded,
    "learner.prompt_once": learning.prompt_once,
    "learner.logprob_memory": learning.logprob_memory,
    "learner.step": learning.step_over_bare_loop,
    "sampler.overhead": sampling.over_bare_engine,
    "sync.copy": syncing.over_copy,
}
"""By the name of the first figure of each."""


def main() -> int:
    """1 where `--check` found a ratio that is worse than the stored one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=sorted(BENCHMARKS), default=sorted(BENCHMARKS))
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    stored, results = read(), list[Result]()
    for name in arguments.only:
        with tempfile.TemporaryDirectory() as folder:
            for result in BENCHMARKS[name](Path(folder)):
                results.append(result)
                met = {None: "", True: ", met", False: ", NOT met"}[result.is_met]
                interval = f"{result.low:.3g} to {result.high:.3g}"
                print(f"{result.name}: {result.ratio:.3g} ({interval}), {result.bound}{met}  {result.note}", flush=True)
    if not arguments.check:
        write(results)
        return 0
    worse = [result for result in results if result.name in stored and result.is_worse_than(stored[result.name])]
    for result in worse:
        print(f"{result.name} is worse: {result.ratio:.3g}, stored {stored[result.name].ratio:.3g}", file=sys.stderr)
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
