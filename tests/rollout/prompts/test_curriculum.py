"""Pass rates, the chance that follows from them, and who is asked: with numbers worked out here."""

import math

import pytest

from rollout.config import CurriculumConfig
from rollout.prompts.curriculum import chance, is_asked, updated

UNCERTAIN = CurriculumConfig(enabled=True, floor=0.2)
HARD = CurriculumConfig(enabled=True, floor=0.2, prefer="hard")


@pytest.mark.parametrize(
    ("pass_rate", "uncertain", "hard"),
    [
        (None, 1.0, 1.0),
        # 0.2 + 0.8 * 4 * 1/4 * 3/4 = 0.2 + 0.8 * 3/4, and 0.2 + 0.8 * 3/4
        (0.25, 0.8, 0.8),
        (0.5, 1.0, 0.6),
        (0.75, 0.8, 0.4),
        (0.0, 0.2, 1.0),
        (1.0, 0.2, 0.2),
    ],
)
def test_the_chance_of_a_prompt(pass_rate: float | None, uncertain: float, hard: float) -> None:
    assert chance(UNCERTAIN, pass_rate) == pytest.approx(uncertain)
    assert chance(HARD, pass_rate) == pytest.approx(hard)


def test_a_pass_rate_is_a_running_mean() -> None:
    half = CurriculumConfig(enabled=True)
    rates = [0.0]
    for newest in (1.0, 1.0, 0.5):
        rates.append(updated(half, rates[-1], newest))
    # The first is taken as it is; then (0 + 1) / 2, (1/2 + 1) / 2, (3/4 + 1/2) / 2.
    assert [updated(half, None, 0.0), *rates[1:]] == [0.0, 0.5, 0.75, 0.625]
    assert updated(CurriculumConfig(newest=1.0), 0.25, 1.0) == 1.0
    assert updated(CurriculumConfig(newest=0.25), 0.5, 1.0) == 0.625


def test_a_prompt_is_asked_as_often_as_its_chance_says() -> None:
    # 4000 prompts of each: the share that is asked has a standard deviation of at most 0.008.
    for pass_rate in (0.0, 0.25, 0.5, 1.0, None):
        asked = [is_asked(UNCERTAIN, pass_rate, seed=3, epoch=4, uid=f"{n:016x}") for n in range(4000)]
        assert math.isclose(sum(asked) / 4000, chance(UNCERTAIN, pass_rate), abs_tol=0.03)
    # Every prompt is seen again: of 200 passes none is left out of more than 100 in a row (chance 0.8^100 = 2e-10).
    for n in range(50):
        asked = [is_asked(UNCERTAIN, 1.0, seed=3, epoch=epoch, uid=f"{n:016x}") for epoch in range(1, 201)]
        assert any(asked[:100])
        assert any(asked[100:])
        assert not all(asked)


def test_the_first_passes_ask_all() -> None:
    later = CurriculumConfig(enabled=True, floor=0.01, after=3)
    uids = [f"{n:016x}" for n in range(200)]
    asked = [sum(is_asked(later, 1.0, seed=0, epoch=epoch, uid=uid) for uid in uids) for epoch in range(4)]
    assert asked[:3] == [200, 200, 200]
    assert asked[3] < 20
