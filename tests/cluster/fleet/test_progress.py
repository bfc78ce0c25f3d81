"""When a run counts as stalled."""

import pytest

from cluster.fleet.progress import Progress
from tests.cluster.fakes import Clock


def test_a_stall_is_told_once_and_again_after_progress() -> None:
    clock = Clock()
    progress = Progress(30.0, clock)
    clock.now_s += 29.9
    assert not progress.new_stall()
    clock.now_s += 0.1
    assert progress.new_stall()
    clock.now_s += 1000
    assert not progress.new_stall()
    assert progress.idle_s == pytest.approx(1030)
    progress.group_scored()
    clock.now_s += 29
    progress.group_taught()
    clock.now_s += 29
    progress.step_trained()
    clock.now_s += 29
    assert not progress.new_stall()
    clock.now_s += 1
    assert progress.new_stall()
    assert (progress.groups_scored, progress.steps_trained) == (1, 1)
