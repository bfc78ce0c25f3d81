"""docs/episodes.md: its game is played, its recipe is built."""

import asyncio
import re
from pathlib import Path

import pytest

from cluster.configuration.loading import build_config, load_config
from cluster.configuration.recipe_yaml import parse_yaml
from rollout.config import EnvironmentTask
from rollout.episodes.environment import Done, Reply, Task
from rollout.episodes.hosted import WorldTemplate
from rollout.types import FinishReason

PAGE = (Path(__file__).parents[3] / "docs" / "episodes.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    assert isinstance(found, str)
    return found


def test_the_game_of_twelve_lines_is_played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_games.py").write_text(block("python"))
    monkeypatch.chdir(tmp_path)

    async def search() -> tuple[int, Done]:
        template = await asyncio.to_thread(WorldTemplate, "my_games:GuessNumber", {})
        try:
            world = await template.world(call_s=10.0)
            await world.start(Task(question="", seed=3, sample_seed=4))
            low, high, turn = 1, 100, 0
            while True:
                turn += 1
                guess = (low + high) // 2
                answer = await world.respond(Reply(text=str(guess), turn=turn, finish_reason=FinishReason.STOP))
                if isinstance(answer, Done):
                    await world.stop()
                    return turn, answer
                low, high = (guess + 1, high) if answer[0].content == "higher" else (low, guess - 1)
        finally:
            template.close()

    turns, done = asyncio.run(search())
    assert 1 <= turns <= 7
    assert done.scores == {"won": 1.0, "turns": float(turns)}


def test_its_recipe_is_built() -> None:
    values = parse_yaml(block("yaml"), "docs/episodes.md")
    base = load_config(values.pop("base")).model_dump(mode="json")
    config = build_config({**base, **values}, source="docs/episodes.md")
    assert isinstance(config.task, EnvironmentTask)
    assert config.task.limits.turns == 8
    assert config.reward.functions[0].params == {"score": "won"}
