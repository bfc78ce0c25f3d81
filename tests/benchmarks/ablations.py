"""Where the speed comes from: a step of `quickstart`'s shape with one trick off at a time; alone on the machine, some
10 minutes.

python -m tests.benchmarks.ablations
"""

import argparse
import os
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.against_trl import SHAPES, Turn, shoal
from tests.benchmarks.pairs import Ratio
from tests.benchmarks.results import Result, write
from tests.benchmarks.suite import told

STEPS = 4
SHAPE_NAMES = [shape.name for shape in SHAPES]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trick:
    """What is turned off, and how."""

    name: str
    what: str
    others: tuple[str, ...] = ()
    module: str = "cluster.cli"


TRICKS = (
    Trick(
        name="packing", what="rows without padding and the prompt of a group once", others=("learner.packing=false",)
    ),
    Trick(
        name="bfloat16",
        what="bfloat16 in sampler and learner",
        others=("learner.dtype=float32", "rollout.dtype=float32"),
    ),
    Trick(name="allocator", what="an allocator that keeps memory", module="tests.benchmarks.without_jemalloc"),
    Trick(
        name="not_streamed",
        what="learning after sampling (streaming is on in its place)",
        others=("learner.streaming=true",),
    ),
)


def main() -> None:
    """All tricks in turn with the whole; written into docs/benchmarks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPE_NAMES, default="quickstart")
    parser.add_argument("--only", nargs="+", choices=[trick.name for trick in TRICKS])
    arguments = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    shape = SHAPES[SHAPE_NAMES.index(arguments.shape)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        whole = [shoal(shape, folder, "whole-0", steps=STEPS)]
        for trick in TRICKS:
            if arguments.only is not None and trick.name not in arguments.only:
                continue
            without = shoal(shape, folder, trick.name, others=trick.others, module=trick.module, steps=STEPS)
            whole.append(shoal(shape, folder, f"whole-{len(whole)}", steps=STEPS))
            result = compared(shape.name, trick, whole[-2:], without)
            print(told(result), flush=True)
            write([result])


def compared(shape: str, trick: Trick, whole: list[Turn], without: Turn) -> Result:
    """The turns of the whole before and after, over that without it."""
    ratio = Ratio.of(tuple(turn.tokens_per_s / without.tokens_per_s for turn in whole))
    note = f"{statistics.median(turn.step_s for turn in whole):.1f} and {without.step_s:.1f} s a step"
    what = f"trained tokens a second, shape {shape}, over those without {trick.what}"
    return Result.of(f"{shape}.without.{trick.name}", what, ratio, None, note)


if __name__ == "__main__":
    main()
