"""The table of groups, against a loop over the completions."""

from pathlib import Path

import pytest

from cluster.dashboard.index.filters import FilterError
from cluster.dashboard.index.store import RunStore
from cluster.dashboard.views.group_table import group_table
from cluster.record.run_directory import RunDirectory
from tests.cluster.dashboard.small_runs import (
    EQUAL,
    FAILED,
    MIXED,
    RIGHT,
    WRONG,
    config,
    open_store,
    write_evaluation,
    write_step,
)


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    run = RunDirectory.create(tmp_path / "run", config())
    write_step(run, 0, ((RIGHT, RIGHT, WRONG, WRONG), (RIGHT, WRONG, WRONG, FAILED)))
    write_step(run, 1, ((WRONG,) * 4, EQUAL))
    write_step(run, 2, (MIXED, (RIGHT,) * 4))
    write_evaluation(run, 3, (RIGHT, WRONG))
    return open_store(run.path)


def table(
    store: RunStore, filter_text: str = "", sort: str = "", offset: int = 0, limit: int = 100
) -> list[tuple[str, int, str]]:
    rows = group_table(store, filter_text=filter_text, sort=sort, offset=offset, limit=limit)["rows"]
    return [(row["phase"], row["step"], row["group_id"]) for row in rows]


@pytest.mark.parametrize(
    "filter_text", ["", "correct", "!correct & phase=train", "step:1-2", "outcome!=ok", "len>1000"]
)
@pytest.mark.parametrize("sort", ["", "-step", "reward", "-reward", "-length"])
def test_a_group_stands_where_its_first_completion_stands(store: RunStore, filter_text: str, sort: str) -> None:
    found = store.query(filter_text, sort, 0, 1000).rows
    groups = list(dict.fromkeys((row.phase, row.step, row.group_id) for row in found))
    page = group_table(store, filter_text=filter_text, sort=sort, offset=0, limit=100)
    assert page["total"] == len(groups)
    assert [(row["phase"], row["step"], row["group_id"]) for row in page["rows"]] == groups
    for row in page["rows"]:
        address = (row["phase"], row["step"], row["group_id"])
        assert row["num_passing"] == sum((one.phase, one.step, one.group_id) == address for one in found)
    assert table(store, filter_text, sort, offset=1, limit=2) == groups[1:3]


def test_a_row_tells_of_the_whole_group(store: RunStore) -> None:
    """Three of four were scored: 1, 0, 0. One of them passes, and all four are shown."""
    (row,) = group_table(store, filter_text="outcome!=ok", sort="", offset=0, limit=10)["rows"]
    assert (row["num_passing"], len(row["cells"]), row["num_correct"]) == (1, 4, 1)
    assert (row["reward_mean"], row["pass_rate"]) == (pytest.approx(1 / 3), pytest.approx(1 / 3))
    assert row["reward_std"] == pytest.approx((2 / 9) ** 0.5)
    assert [cell["correct"] for cell in row["cells"]] == [True, False, False, None]
    assert "not_scored" in row["flags"]
    equal = group_table(store, filter_text="step:1-1", sort="", offset=0, limit=10)["rows"]
    assert ["equal_rewards" in one["flags"] for one in equal] == [True, True]


def test_by_step_training_comes_before_evaluations(store: RunStore) -> None:
    """Whichever way: an evaluation after step 2 has the number 3, and would come before the newest step."""
    for sort, order in (("step", [0, 1, 2]), ("-step", [2, 1, 0])):
        found = list(dict.fromkeys((row.phase, row.step) for row in store.query("", sort, 0, 1000).rows))
        assert found == [*(("train", step) for step in order), ("eval", 3)]
    assert table(store, sort="-step")[0][:2] == ("train", 2)
    assert [row.phase for row in store.query("phase=eval", "-step", 0, 10).rows] == ["eval"] * 2


def test_what_does_not_parse_is_refused(store: RunStore) -> None:
    with pytest.raises(FilterError):
        table(store, "reward<")
