"""A `shoal` whose sampler hangs once, in a loop of C that holds the GIL: nothing in its process answers any more.

Run as a program: the first word is the file that says that it has hung already.
"""

import os
import sys
from pathlib import Path
from typing import Any

import cluster.fleet.roles
from cluster.fleet.roles import build_vllm_engine
from rollout.config import ModelConfig, RolloutConfig
from rollout.engines.protocol import Engine

MARKER = "SHOAL_TEST_HUNG"
STEPS_BEFORE = 12


def never_ends() -> None:
    sum(range(10**13))


def build_hanging_engine(model_dir: str, model: ModelConfig, rollout: RolloutConfig, seed: int) -> Engine:
    """The real engine, but for one of its steps."""
    engine = build_vllm_engine(model_dir, model, rollout, seed)
    step, left = engine.step, [STEPS_BEFORE]

    def hang_once() -> Any:
        left[0] -= 1
        if left[0] == 0 and not Path(os.environ[MARKER]).exists():
            Path(os.environ[MARKER]).touch()
            never_ends()
        return step()

    setattr(engine, "step", hang_once)  # noqa: B010
    return engine


if __name__ == "__main__":
    from cluster.cli import main
    from tests.integration import hanging_sampler

    os.environ[MARKER] = sys.argv[1]
    # By its import path, which the actor's process can import too; here this file is `__main__`.
    cluster.fleet.roles.build_vllm_engine = hanging_sampler.build_hanging_engine
    sys.exit(main(sys.argv[2:]))
