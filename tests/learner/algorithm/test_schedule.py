import pytest

from learner.algorithm.schedule import lr_at
from learner.config import ScheduleConfig


def rates(total_steps: int, **fields: object) -> list[float]:
    schedule = ScheduleConfig.model_validate(fields)
    return [lr_at(step, peak_lr=2.0, schedule=schedule, total_steps=total_steps) for step in range(total_steps)]


def test_constant_without_warm_up() -> None:
    assert rates(3) == [2.0, 2.0, 2.0]


def test_warm_up_rises_linearly_and_ends_at_the_peak() -> None:
    # steps 1/4, 2/4, 3/4, 4/4 of 2.0
    assert rates(6, warmup_steps=4) == [0.5, 1.0, 1.5, 2.0, 2.0, 2.0]


def test_linear_reaches_its_floor_at_the_last_step() -> None:
    # from 2.0 at step 0 to 0.2 at step 4: -0.45 a step
    assert rates(5, kind="linear", min_lr_ratio=0.1) == pytest.approx([2.0, 1.55, 1.1, 0.65, 0.2])


def test_a_fall_of_one_step_is_whole() -> None:
    assert rates(2, kind="linear") == [2.0, 0.0]
    assert rates(3, kind="linear", warmup_steps=2) == [1.0, 2.0, 0.0]


def test_cosine_is_halfway_in_the_middle() -> None:
    # warm-up 1.0, 2.0; then cosine over 4 steps: (1 + cos(pi k / 4)) for k = 1..4
    assert rates(6, kind="cosine", warmup_steps=2) == pytest.approx([1.0, 2.0, 1.707107, 1.0, 0.292893, 0.0], abs=1e-6)


def test_a_step_beyond_the_last_keeps_the_floor() -> None:
    schedule = ScheduleConfig(kind="linear", min_lr_ratio=0.5)
    assert lr_at(100, peak_lr=2.0, schedule=schedule, total_steps=5) == 1.0


def test_a_run_of_one_step_has_the_peak() -> None:
    assert rates(1, kind="cosine") == [2.0]
