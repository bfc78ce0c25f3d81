"""Every shipped recipe is parsed, planned and described; the paper's recipe has the paper's values."""

import textwrap
from pathlib import Path

import pytest

from cluster.configuration.loading import (
    build_config,
    dump_config,
    list_recipes,
    load_config,
    parse_config,
    recipe_summary,
)
from cluster.configuration.plan import make_plan
from learner.objective import GroupAdvantage

RECIPES = list_recipes()


def test_the_recipes_that_the_readme_names_are_shipped() -> None:
    names = {path.stem for path in RECIPES}
    assert {"quickstart", "tiny", "gsm8k-smollm2", "gsm8k-qwen", "deepseekmath"} <= names


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe_is_parsed_planned_and_described(path: Path) -> None:
    config = load_config(path.stem)
    assert parse_config(dump_config(config), source=path.name) == config
    plan = make_plan(config)
    assert plan.num_parameters is not None, "a shipped recipe's model must be in model_shapes.KNOWN_SHAPES"
    unknown = [entry.what for entry in plan.memory if entry.num_bytes is None]
    assert unknown in ([], ["teacher in float32"]), "a teacher is made by the user"
    longest_eval = config.eval.sampling.max_tokens
    assert longest_eval >= config.rollout.sampling.max_tokens, "evaluation would cut what training may say"
    assert 20 <= len(recipe_summary(path)) <= 100


def test_deepseekmath_has_the_values_of_the_paper() -> None:
    """arXiv 2402.03300, section 4.2."""
    config = load_config("deepseekmath")
    assert config.learner.lr == 1e-6
    assert config.learner.objective.kl.coef == 0.04
    assert config.rollout.group_size == 64
    assert config.rollout.sampling.max_tokens == 1024
    assert config.rollout.prompts_per_step * config.rollout.group_size == 1024
    assert config.learner.updates_per_batch == 1
    assert config.learner.objective.advantage == GroupAdvantage()
    assert config.max_policy_lag == 0


def test_tiny_runs_in_fp32_and_deterministically() -> None:
    config = load_config("tiny")
    assert config.deterministic
    assert (config.rollout.dtype, config.learner.dtype) == ("float32", "float32")
    assert config.model.path == "tiny:"


def test_the_recipe_in_the_readme_is_a_recipe(tmp_path: Path) -> None:
    readme = (Path(__file__).parents[3] / "README.md").read_text(encoding="utf-8")
    indented = readme[readme.index("    base: ") :].split("\n\n")[0]
    (tmp_path / "own.yaml").write_text(textwrap.dedent(indented))
    config = load_config(str(tmp_path / "own.yaml"))
    assert config.task.kind == "jsonl"
    assert [function.component for function in config.reward.functions] == ["math", "brevity"]
    assert config.model == load_config("gsm8k-qwen").model


def test_a_lost_learner_rank_costs_a_bounded_number_of_steps() -> None:
    """What is trained again is at most what came since the newest checkpoint."""
    config = build_config({"task": {"kind": "gsm8k"}, "steps": 1000}, source="test")
    assert config.checkpoint.every == 20
    for path in RECIPES:
        assert 0 < load_config(path.stem).checkpoint.every <= 50, path.stem
