"""A `shoal` of whose learner ranks the second one falls asleep in a training step, once: the first waits for it in a
collective call. Run as a program: the first word is the file that says that it has slept already.
"""

import os
import sys
import time
from pathlib import Path

import learner.worker
from learner.types import ComputedTokens, RankShare, StepOutput
from learner.worker import LearnerWorker
from rollout.types import RolloutGroup

MARKER = "SHOAL_TEST_SLEPT"
STEP = 3


def falls_asleep() -> None:
    time.sleep(10**6)


class Sleeper(LearnerWorker):
    def train_step(self, share: RankShare, *groups: RolloutGroup) -> tuple[StepOutput, ComputedTokens]:
        marker = Path(os.environ[MARKER])
        if share.step == STEP and self._rank == 1 and not marker.exists():
            marker.touch()
            falls_asleep()
        return super().train_step(share, *groups)


if __name__ == "__main__":
    from cluster.cli import main
    from tests.integration import hanging_learner

    os.environ[MARKER] = sys.argv[1]
    # By its import path, which the actor's process can import too; here this file is `__main__`.
    learner.worker.LearnerWorker = hanging_learner.Sleeper  # type: ignore[misc]
    sys.exit(main(sys.argv[2:]))
