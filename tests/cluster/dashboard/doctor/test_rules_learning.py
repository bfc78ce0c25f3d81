"""What was learnt and is lost again: when a fall is one."""

from collections.abc import Sequence

from tests.cluster.dashboard.doctor.test_rules import JUMPING, check, evaluated, facts, flat, line


def test_a_fall_of_the_reward_is_one_while_it_lasts() -> None:
    rule = check("reward_fell")
    fallen = [*JUMPING, 0.5, 0.5, 0.5]
    assert rule(facts({"reward/mean": fallen})).since_step == 30
    # It still is after many steps more, and is over when the reward is back.
    assert rule(facts({"reward/mean": fallen + [0.48, 0.52] * 30})).since_step == 30
    assert rule(facts({"reward/mean": fallen + [0.48, 0.52] * 30 + JUMPING})) is None
    # One step, or two, are an accident.
    assert rule(facts({"reward/mean": [*JUMPING, 0.3]})) is None
    assert rule(facts({"reward/mean": [*JUMPING, 0.3, 0.3]})) is None
    # What rises all along, or stands still with a little noise, has not fallen.
    assert rule(facts({"reward/mean": line(0.1, 0.9, 60)})) is None
    assert rule(facts({"reward/mean": [*flat(0.8, 40), 0.79, 0.78, 0.79]})) is None
    assert rule(facts({"reward/mean": [0.9, 0.9, 0.1, 0.1, 0.1]})) is None  # too young to say where it was


def test_of_the_noise_of_a_small_step_no_fall_is_made() -> None:
    # 16 completions of 0 or 1: the mean of a step has an error of 0.125, though by chance it stood still.
    columns: dict[str, Sequence[float | None]] = {
        "reward/mean": [*flat(0.5, 20), 0.31, 0.31, 0.31],
        "reward/std": flat(0.5, 23),
        "rollout/completions": [16.0] * 23,
    }
    assert check("reward_fell")(facts(columns)) is None
    assert check("reward_fell")(facts({**columns, "rollout/completions": [1600.0] * 23})) is not None


def test_with_many_evaluations_a_fall_must_be_in_two_of_them() -> None:
    rule = check("held_out_fell")
    assert rule(facts(**evaluated(0.4, 0.8, 0.8, 0.8, 0.5))) is None
    assert rule(facts(**evaluated(0.4, 0.8, 0.8, 0.8, 0.5, 0.5))).since_step == 40
    assert rule(facts(**evaluated(0.4, 0.8, 0.8, 0.8, 0.5, 0.8))) is None
    # Of ten questions a fall from 8 to 5 is chance.
    assert rule(facts(**evaluated(0.4, 0.8, 0.8, 0.8, 0.5, 0.5, questions=10.0))) is None
    # What jumps about by a tenth from one to the next has not fallen by two.
    assert rule(facts(**evaluated(0.5, 0.7, 0.5, 0.7, 0.5, 0.48, 0.47, questions=1000.0))) is None
