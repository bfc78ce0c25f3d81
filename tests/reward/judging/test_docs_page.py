"""docs/judges.md: its recipes are built, its rubric is read, its server scores, and every param has its line."""

import re
import threading
from pathlib import Path
from typing import Any

import pytest

from cluster.configuration.loading import build_config, load_config
from cluster.configuration.recipe_yaml import parse_yaml
from reward.judging.config import HttpConfig, JudgeConfig, ServerLimits
from reward.judging.rubric import read_rubric
from rollout.config import Config
from tests.reward.judging.asking import items, judge, judged
from tests.reward.judging.scripted_judge import judging
from tests.rollout.endpoint.scripted_server import serving

PAGE = (Path(__file__).parents[3] / "docs" / "judges.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def rows(heading: str) -> list[str]:
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)


def test_every_block_is_looked_at_here() -> None:
    assert [len(blocks(language)) for language in ("yaml", "toml", "python")] == [2, 1, 1]
    assert len(re.findall(r"^```\w+$", PAGE, re.MULTILINE)) == 4


@pytest.mark.parametrize("text", blocks("yaml"), ids=["judge", "http"])
def test_its_recipes_are_built(text: str) -> None:
    values = parse_yaml(text, "docs/judges.md")
    base = load_config(values.pop("base")).model_dump(mode="json")
    config = build_config({**base, **values}, source="docs/judges.md")
    (asked,) = config.reward.asked.values()
    if isinstance(asked, JudgeConfig):
        assert (asked.model, asked.api_key_env, asked.limits.requests_per_minute) == ("Qwen3-8B", "JUDGE_KEY", 500)
    else:
        assert asked.columns == ("level",)


def test_its_rubric_gives_what_it_says(tmp_path: Path) -> None:
    (text,) = blocks("toml")
    path = tmp_path / "rubric.toml"
    path.write_text(text)
    assert [criterion.name for criterion in read_rubric(str(path)).criteria] == ["sources", "brief", "apology"]
    scores = {"sources": 3, "brief": 1, "apology": 0}
    with serving(judging(lambda asked: asked.says(scores=scores))) as server:
        (found,) = judged(judge(server.base_url, mode="rubric", rubric=str(path)), items("a"))
    (answer,) = found.answers
    assert answer.value == pytest.approx((2 * 0.75 + 1 + 0) / 3)
    assert f"{answer.value:.2f}" in PAGE


def test_its_server_scores_groups() -> None:
    (code,) = blocks("python")
    names: dict[str, Any] = {}
    exec(code, names)
    with names["serve"](0) as server:
        server.RequestHandlerClass.log_message = lambda *_: None
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        config = HttpConfig(url=f"http://127.0.0.1:{server.server_address[1]}/score")
        (found,) = judged(config, items("4", "5 ", ground_truth="4"))
        server.shutdown()
    assert [(answer.value, answer.detail) for answer in found.answers] == [(1.0, "judge: right"), (0.0, "judge: wrong")]


@pytest.mark.parametrize(
    ("heading", "kind"), [("Params of judge", JudgeConfig), ("Params of http", HttpConfig), ("Limits", ServerLimits)]
)
def test_every_param_has_its_line(heading: str, kind: type[Config]) -> None:
    assert sorted(rows(heading)) == sorted(kind.model_fields)


def test_an_example_of_a_verdict_is_one() -> None:
    from reward.judging.verdicts import read_verdict

    (line,) = re.findall(r'^    (\{"id".*\})$', PAGE, re.MULTILINE)
    verdict = read_verdict(line, "5f2c9a7b", ["score"])
    assert (verdict.values, verdict.reason) == ({"score": 7}, "Right, and it says why.")
