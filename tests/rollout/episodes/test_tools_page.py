"""docs/tools.md: its class is called, its recipe is built, its example is read."""

import asyncio
import re
from pathlib import Path

import pytest

from cluster.configuration.loading import build_config, load_config
from cluster.configuration.recipe_yaml import parse_yaml
from rollout.config import EnvironmentTask
from rollout.episodes.environment import Done, Reply, Task, ToolCall
from rollout.episodes.hosted import WorldTemplate
from rollout.types import FinishReason

PAGE = (Path(__file__).parents[3] / "docs" / "tools.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def test_the_class_is_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_library.py").write_text(blocks("python")[0])
    monkeypatch.chdir(tmp_path)

    async def asked() -> tuple[list[str], Done]:
        template = await asyncio.to_thread(WorldTemplate, "my_library:Library", {})
        try:
            assert [one["function"]["name"] for one in template.schemas] == ["look_up"]
            world = await template.world(call_s=10.0)
            await world.start(Task(question="What moves the tides?", ground_truth="moon", seed=3, sample_seed=4))
            calls = [{"subject": "tides"}, {"subject": "stars"}, {"topic": "tides"}]
            results = [await world.call(ToolCall(name="look_up", arguments=of)) for of in calls]
            done = await world.respond(Reply(text="The moon.", turn=2, finish_reason=FinishReason.STOP))
            await world.stop()
            assert isinstance(done, Done)
            return results, done
        finally:
            template.close()

    results, done = asyncio.run(asked())
    assert results[0] == "Tides follow the moon."
    assert results[1].startswith("Error: KeyError")
    assert "topic" in results[2] or "subject" in results[2]
    assert done.scores == {"right": 1.0}


def test_its_recipe_is_built() -> None:
    values = parse_yaml(blocks("yaml")[0], "docs/tools.md")
    base = load_config(values.pop("base")).model_dump(mode="json")
    base["model"] |= values.pop("model")
    config = build_config({**base, **values}, source="docs/tools.md")
    assert isinstance(config.task, EnvironmentTask)
    assert config.task.rows is not None


def test_its_example_is_a_conversation() -> None:
    namespace: dict[str, object] = {}
    exec(blocks("python")[1], namespace)  # a page of our own
    messages = namespace["example"]
    assert isinstance(messages, list)
    assert [message.role for message in messages] == ["user", "assistant", "tool", "assistant"]


def test_its_commands_are_there() -> None:
    from cluster.cli import _parser

    for line in blocks("console")[0].splitlines():
        arguments = _parser().parse_args(line.split()[1:])
        assert arguments.words == ["tool-sums"]
