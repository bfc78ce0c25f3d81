"""docs/data.md says what is."""

import re
from pathlib import Path

import pytest

from cluster.config import RunConfig
from cluster.configuration.loading import build
from cluster.configuration.recipe_yaml import parse_yaml
from rollout.config import ColumnMapping, CurriculumConfig, JsonlTask, ParquetTask, weights_of
from rollout.errors import DataError
from rollout.prompts.curriculum import chance
from rollout.prompts.tasks import load_rows

PAGE = (Path(__file__).parents[3] / "docs" / "data.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"(?:^    .*\n)+", PAGE, re.MULTILINE)


def test_the_task_on_the_page_is_one() -> None:
    values = parse_yaml(BLOCKS[0], "docs/data.md")
    task = build(ParquetTask, values["task"], source="docs/data.md")
    assert task.columns == ColumnMapping(question="prompt", ground_truth="reward_model.ground_truth")


def test_the_sentence_on_the_page_is_what_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    good = [f'{{"question": "{n}", "answer": "1", "level": 1}}\n' for n in range(16)]
    Path("train.jsonl").write_text("".join([*good, '{"question": "x", "level": 1}\n']))
    with pytest.raises(DataError) as caught:
        load_rows(JsonlTask(path="train.jsonl"), split="train")
    assert " ".join(BLOCKS[1].split()) == f"shoal: {caught.value}"


def test_the_mix_and_the_curriculum_on_the_page_are_a_configuration() -> None:
    (mix,) = (block for block in BLOCKS if "kind: mix" in block)
    (curriculum,) = (block for block in BLOCKS if "curriculum:" in block)
    values = {**parse_yaml(mix, "docs/data.md"), **parse_yaml(curriculum, "docs/data.md")}
    config = build(RunConfig, values, source="docs/data.md")
    assert weights_of(config.task) == {"school": 3.0, "sums": 1.0}
    assert config.curriculum.enabled
    rows = re.findall(r"^\| `(\w+)` \| floor.*\| ([\d., ]+) \|$", PAGE, re.MULTILINE)
    assert [name for name, _ in rows] == ["uncertain", "hard"]
    for name, chances in rows:
        of_page = build(CurriculumConfig, {"prefer": name, "floor": 0.1}, source="docs/data.md")
        assert [float(text) for text in chances.split(", ")] == pytest.approx(
            [chance(of_page, p) for p in (0.0, 0.25, 0.5, 1.0)]
        )
