"""What does not go with episodes is refused before anything starts."""

import pytest

from cluster.configuration.loading import load_config
from rollout.errors import ConfigError

WORLD = '{kind: environment, environment: "rollout.episodes.games:GuessNumber"}'
SUMS = "{kind: reasoning_gym, generator: basic_arithmetic}"
OTHER = 'eval_task={kind: environment, environment: "rollout.episodes.games:GuessNumber", size: 360, limits: {turns: 9}'


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            ["deterministic=true", "task={kind: mix, tasks: [" + WORLD + ", " + SUMS + "]}"],
            "deterministic is true and task has environments and single answers",
        ),
        (["task.system_prompt=Be brief."], "system_prompt is for questions"),
        (["task.limits.turns=0"], "task.limits.turns: got 0, allowed: greater than or equal to 1"),
        (["reward.functions.1.function=overlong", "reward.functions.1.params={buffer_tokens: 2}"], "has overlong"),
        ([OTHER + "}"], "two environments that are named 'GuessNumber': give one of them another `name`"),
    ],
)
def test_what_does_not_go_together(overrides: list[str], words: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load_config("guess", overrides)
    assert words in str(raised.value)


def test_a_name_of_its_own_lets_an_evaluation_have_other_limits() -> None:
    config = load_config("guess", [OTHER + ", name: longer}"])
    assert config.eval_task is not None


def test_limits_stay_what_they_were_on_resume() -> None:
    from cluster.commands.resume import _is_changeable

    assert not _is_changeable("task.limits.episode_s")
    assert _is_changeable("rollout.group_deadline_s")
