"""Twenty random fault schedules on real Ray, vLLM and DeepSpeed: whatever happens, each group is trained on once.

Even seeds run synchronously, where the weights must be those of the run without faults; odd ones sample ahead on two
samplers. A failing seed is run again by its number: pytest -m faults tests/faults/test_real_soak.py -k "[7]".
"""

import random
import signal
from pathlib import Path

import pytest

from tests.faults import faults
from tests.faults.faults import Fault, Faults
from tests.faults.test_sync_faults import AHEAD, NUM_GROUPS

pytestmark = pytest.mark.faults

SEEDS = range(20)
SYNCHRONOUS = ("tiny", *faults.SHORT, "checkpoint.every=2")
SAMPLING_AHEAD = ("tiny", *AHEAD, "checkpoint.every=2", "rollout.group_deadline_s=20")
IMPATIENT = ("recovery.probe_every_s=0.5", "recovery.probe_deadline_s=20")
KINDS = (
    # (role, event, action), with how often it is drawn
    (("sampler", "serving", "kill"), 3),
    (("sampler", "idle", "kill"), 2),
    (("sampler", "syncing", "kill"), 3),
    (("sampler", "idle", "raise"), 2),
    (("sampler", "idle", "slow"), 1),
    (("learner", "training", "kill"), 2),
    (("reward", "scoring", "kill"), 2),
    (("checkpoint", "saving", "no_space"), 2),
    (("checkpoint", "saved", "corrupt"), 2),
    (("job", "scored", "kill"), 1),
    (("job", "after_sync", "kill"), 1),
)


def schedule_of(seed: int) -> list[Fault]:
    """One to three faults in steps 1 to 4, no two at the same point."""
    rng = random.Random(seed)
    kinds, weights = zip(*KINDS, strict=True)
    places: dict[tuple[str, int], Fault] = {}
    for _ in range(rng.randint(1, 3)):
        role, event, action = rng.choices(kinds, weights)[0]
        # Checkpoints are written after steps 2 and 4.
        step = rng.choice((2, 4)) if role == "checkpoint" else rng.randint(1, 4)
        index = rng.randint(0, 1) if role == "sampler" and seed % 2 else 0
        places.setdefault((event, step), Faults.at(role, index, step=step, event=event).do(action))
    return sorted(places.values(), key=lambda fault: fault.step)


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_is_lost(seed: int, undisturbed: Path, tmp_path: Path) -> None:
    path = tmp_path / "run"
    schedule = schedule_of(seed)
    words = SAMPLING_AHEAD if seed % 2 else SYNCHRONOUS
    run = faults.start(path, schedule, *words, *IMPATIENT)
    code = run.wait()
    struck = faults.all_struck(path)
    assert struck, f"seed {seed}: none of {schedule} happened"
    if any(one["victim"] == "job-0" for one in struck):
        assert code == -signal.SIGKILL, run.output()
        assert run.left_behind() == []
        faults.resume(path)
    else:
        assert code == 0, f"seed {seed}, {schedule}:\n{run.output()}"
    faults.assert_exactly_once(path, num_groups=NUM_GROUPS if seed % 2 else faults.NUM_GROUPS)
    if seed % 2 == 0:
        faults.assert_same_end(path, undisturbed)
    assert run.left_behind() == []
