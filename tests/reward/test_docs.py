"""docs/rewards.md: every shipped function has its section, every param its line, and every example is run."""

import asyncio
import inspect
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cluster.configuration.recipe_yaml import parse_yaml
from reward.children.child import evaluate
from reward.config import RewardFunctionConfig
from reward.function_loading import BUILTIN_MODULES, load_function
from reward.types import RewardInput
from rollout.types import read_only

PAGE = (Path(__file__).parents[2] / "docs" / "rewards.md").read_text(encoding="utf-8")
SECTIONS = {
    match[1]: match[2] for match in re.finditer(r"^## (\w+)\n(.*?)(?=^#{1,2} |\Z)", PAGE, re.DOTALL | re.MULTILINE)
}
EXAMPLES = [
    pytest.param(parse_yaml(text, "docs/rewards.md"), id=f"{name} {number}")
    for name, section in SECTIONS.items()
    for number, text in enumerate(re.findall(r"^```yaml\n(.*?)^```$", section, re.DOTALL | re.MULTILINE))
]


@pytest.mark.parametrize("name", sorted(BUILTIN_MODULES))
def test_every_function_has_its_section_with_all_params(name: str) -> None:
    section = SECTIONS[name]
    # Found without its params being checked: some have no default.
    __import__(BUILTIN_MODULES[name])
    from reward.functions import REGISTRY

    params = list(inspect.signature(REGISTRY[name].function).parameters)[1:]
    rows = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    assert rows == params
    assert section.count("```yaml\n") >= 1


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples(example: dict[str, Any]) -> None:
    function = RewardFunctionConfig(function=example["function"], params=example.get("params", {}))
    loaded = load_function(function)
    loop = asyncio.new_event_loop()
    outcomes = example["outcomes"]
    assert len({outcome["gives"] for outcome in outcomes}) > 1, "an example of each outcome"
    for outcome in outcomes:
        item = RewardInput(
            question="q",
            prompt="q",
            completion=outcome.get("completion", ""),
            token_ids=read_only(range(outcome.get("num_tokens", 1)), np.int32),
            ground_truth=example.get("ground_truth"),
            row=example.get("row", {}),
            task="t",
            scores=outcome.get("scores", {}),
            episode_outcome=outcome.get("episode_outcome", ""),
        )
        if loaded.check_row is not None:
            loaded.check_row(item, **loaded.params)
        ((how, value, detail),) = evaluate(loaded, [item], loop)
        assert how == "ok", outcome
        assert value == pytest.approx(outcome["gives"]), outcome
        if "detail" in outcome:
            assert detail == f"{example['function']}: {outcome['detail']}"
    loop.close()
