"""Objectives of papers: laid over any recipe, whole; their recipes and pages have the papers' values."""

import re
from pathlib import Path
from typing import Any

import pytest

from cluster.config import RunConfig
from cluster.configuration.loading import (
    RECIPES_DIR,
    find_recipe,
    list_objectives,
    list_recipes,
    load_config,
    recipe_summary,
)
from cluster.configuration.recipe_yaml import parse_yaml
from learner.objective import ObjectiveConfig
from reward.config import StepsConfig
from rollout.errors import ConfigError

NAMES = [path.stem for path in list_objectives()]
PAGES = sorted((Path(__file__).parents[3] / "docs" / "algorithms").glob("*.md"))
INDEX = next(page for page in PAGES if page.name == "README.md")
BLOCK = re.compile(r"^```yaml\n(.*?)^```$", re.DOTALL | re.MULTILINE)
FRAGMENTS = [
    pytest.param(text, id=f"{page.stem} {number}")
    for page in PAGES
    for number, text in enumerate(BLOCK.findall(page.read_text("utf-8")))
]
PRESETS = {
    "deepseekmath", "deepseekmath_process", "deepseekmath_iterative", "dr_grpo", "dapo", "gspo", "cispo_scale_rl",
    "rloo", "reinforce_plus_plus", "maxrl", "async",
}  # fmt: skip


def problem(recipe: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(recipe, overrides)
    return str(caught.value)


def written(tmp_path: Path, text: str) -> RunConfig:
    (tmp_path / "own.yaml").write_text(text)
    return load_config(str(tmp_path / "own.yaml"))


@pytest.mark.parametrize("name", NAMES)
def test_every_objective_goes_with_tiny(name: str) -> None:
    config = load_config("tiny", [f"objective={name}"])
    values: dict[str, Any] = parse_yaml(find_objective(name).read_text("utf-8"), name)
    assert config.learner.objective == ObjectiveConfig.model_validate(values["learner"]["objective"])
    tiny = load_config("tiny")
    assert (config.task, config.model, config.rollout, config.learner.lr) == (
        tiny.task, tiny.model, tiny.rollout, tiny.learner.lr,
    )  # fmt: skip
    assert 20 <= len(recipe_summary(find_objective(name))) <= 118


def find_objective(name: str) -> Path:
    return RECIPES_DIR / "objectives" / f"{name}.yaml"


def test_the_presets_are_recipes_with_the_objective_of_their_name() -> None:
    recipes = {path.stem for path in list_recipes()}
    assert recipes >= PRESETS
    for name in PRESETS:
        of_paper = load_config("tiny", [f"objective={name}"]).learner.objective
        assert load_config(name).learner.objective == of_paper, name


def test_the_objective_of_a_recipe_is_replaced_as_a_whole(tmp_path: Path) -> None:
    """Nothing of the base's objective is left that the paper does not have."""
    base = "base: tiny\nlearner: {objective: {kl: {coef: 0.3}, entropy: {coef: 0.1}, mask_truncated: true}}\n"
    (tmp_path / "base.yaml").write_text(base)
    config = written(tmp_path, "base: ./base.yaml\nobjective: gspo\n")
    assert config.learner.objective == load_config("gspo").learner.objective
    assert config.learner.mini_batches == 4


def test_what_a_recipe_says_itself_comes_after_its_objective_and_overrides_last(tmp_path: Path) -> None:
    text = "base: tiny\nobjective: dapo\nlearner: {objective: {surrogate: {eps_high: 0.5}}}\n"
    config = written(tmp_path, text)
    assert config.learner.objective.surrogate.model_dump()["eps_high"] == 0.5
    assert config.learner.objective.aggregation.kind == "token_mean"
    path = str(tmp_path / "own.yaml")
    last = load_config(path, ["learner.lr=0.5", "objective=dr_grpo", "learner.objective.surrogate.eps=0.3"])
    assert last.learner.objective.aggregation.kind == "token_sum"
    surrogate = last.learner.objective.surrogate.model_dump()
    assert (surrogate["eps"], surrogate["eps_high"], last.learner.lr) == (0.3, None, 0.5)


def test_a_recipe_without_a_base_may_have_an_objective(tmp_path: Path) -> None:
    config = written(tmp_path, "objective: maxrl\ntask: {kind: gsm8k}\n")
    assert config.learner.objective == load_config("maxrl").learner.objective


def test_a_name_that_is_none_is_told(tmp_path: Path) -> None:
    assert problem("tiny", "objective=gpso").startswith("objective: got 'gpso', allowed: one of async, cispo, ")
    assert "objective: got '../tiny', allowed" in problem("tiny", "objective=../tiny")
    (tmp_path / "own.yaml").write_text("base: tiny\nobjective: [gspo]\n")
    assert "objective: got ['gspo'], allowed: one of async" in problem(str(tmp_path / "own.yaml"))


def test_steps_and_process_supervision_need_each_other() -> None:
    config = load_config("tiny", ["objective=deepseekmath_process"])
    assert config.reward.steps == StepsConfig(function="arithmetic_steps")
    assert "reward.steps is null: nothing scores the steps" in problem(
        "tiny", "objective=deepseekmath_process", "reward.steps=null"
    )
    assert "which does not look at steps" in problem("tiny", "reward.steps.function=arithmetic_steps")


def test_sampling_ahead_is_not_deterministic() -> None:
    config = load_config("tiny", ["objective=async"])
    assert (config.max_policy_lag, config.deterministic) == (4, False)


@pytest.mark.parametrize("text", FRAGMENTS)
def test_every_fragment_of_the_pages_is_a_recipe_over_tiny(text: str, tmp_path: Path) -> None:
    assert written(tmp_path, text if "base:" in text else f"base: tiny\n{text}").steps


@pytest.mark.parametrize("name", NAMES)
def test_every_objective_has_a_page_that_names_it(name: str) -> None:
    rows = [line for line in INDEX.read_text("utf-8").splitlines() if f"`{name}`" in line and line.startswith("| [")]
    assert len(rows) == 1
    link = re.search(r"\]\((\w+\.md)\)", rows[0])
    assert link is not None
    assert f"objective={name}" in (INDEX.parent / link[1]).read_text("utf-8")


def test_what_the_index_links_to_is_there() -> None:
    linked = set(re.findall(r"\]\(([\w./]+)\)", INDEX.read_text("utf-8")))
    assert len(linked) >= 16
    assert [link for link in sorted(linked) if not (INDEX.parent / link).is_file()] == []


def test_a_recipe_keeps_its_base_but_for_what_it_says() -> None:
    assert load_config("gspo").rollout == load_config("deepseekmath").rollout
    dapo = load_config("dapo")
    assert (dapo.rollout.group_size, dapo.rollout.prompts_per_step, dapo.learner.mini_batches) == (16, 512, 16)
    assert [function.function for function in dapo.reward.functions] == ["math", "overlong"]
    assert dapo.dynamic_sampling.enabled
    assert find_recipe("dapo").is_file()


def test_one_objective_takes_the_place_of_another_and_two_are_refused() -> None:
    with pytest.raises(ConfigError, match="objective: got gspo and rloo, allowed: one"):
        load_config("tiny", ["objective=gspo", "objective=rloo"])
    assert load_config("deepseekmath_process", ["objective=gspo"]).reward.steps is None
    assert load_config("gspo", ["objective=rloo"]).learner.mini_batches == 1


def test_an_objective_that_is_none_is_told_with_its_file(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("base: tiny\nobjective: nope\n")
    with pytest.raises(ConfigError, match=r"mine\.yaml: objective: got 'nope'"):
        load_config(str(recipe))
    with pytest.raises(ConfigError, match="GRPO as in its paper is deepseekmath"):
        load_config("tiny", ["objective=grpo"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["objective=deepseekmath_iterative", "steps=10"], "stay what it is at the start"),
        (
            ["objective=maxrl", "reward.functions=[{function: math}, {function: overlong}]"],
            "rewards of at least 0 alone",
        ),
        (["objective=gdpo", "dynamic_sampling.enabled=true"], "learns from some of them"),
    ],
)
def test_an_objective_that_cannot_work_with_the_rest_is_refused(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config("tiny", words)
