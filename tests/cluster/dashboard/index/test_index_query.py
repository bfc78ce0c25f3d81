"""Filters and sorts on columns, against a loop over the rows."""

import operator
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.dashboard.index.columns import _occurrences
from cluster.dashboard.index.store import RunStore
from cluster.dashboard.records import RolloutRow
from tests.cluster.dashboard.million_run import write_run

_OPERATORS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "=": operator.eq}
_FIELDS = ("reward", "advantage", "length", "entropy", "max_gap", "k3", "repetition", "step", "sample_index", "lag")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunStore]:
    path: Path = tmp_path_factory.mktemp("query") / "run"
    write_run(path, 1200)
    store = RunStore(path)
    store.refresh()
    yield store
    store.close()


@pytest.fixture(scope="module")
def rows(store: RunStore) -> list[RolloutRow]:
    return [row for step in store.table_steps("train") for row in store.step_rows("train", step)]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_comparisons_with_numbers(store: RunStore, rows: list[RolloutRow], data: st.DataObject) -> None:
    parts = []
    masks = []
    for _ in range(data.draw(st.integers(1, 3))):
        field, sign = data.draw(st.sampled_from(_FIELDS)), data.draw(st.sampled_from(sorted(_OPERATORS)))
        value = np.float32(getattr(data.draw(st.sampled_from(rows)), field))
        negated = data.draw(st.booleans())
        parts.append(f"{'!' if negated else ''}({field}{sign}{float(value):.9g})")
        found = np.array([_OPERATORS[sign](np.float32(getattr(row, field)), value) for row in rows])
        masks.append(~found if negated else found)
    join = data.draw(st.sampled_from("&|"))
    wanted = np.logical_and.reduce(masks) if join == "&" else np.logical_or.reduce(masks)
    page = store.query(join.join(parts), "", 0, 1000)
    assert page.total == wanted.sum()
    assert list(page.rows) == [row for row, keep in zip(rows, wanted, strict=True) if keep][:1000]


@pytest.mark.parametrize("field", [*_FIELDS, "worker", "answer", "truth", "question", "uid", "finish", "reward.math"])
@pytest.mark.parametrize("descending", [False, True])
def test_sorts(store: RunStore, rows: list[RolloutRow], field: str, descending: bool) -> None:
    def key(row: RolloutRow) -> object:
        value = row.components["math"] if field == "reward.math" else getattr(row, field)
        return float(np.float32(value)) if isinstance(value, float) else value

    # reverse=True keeps the order of equal ones, as the table does.
    wanted = sorted(rows, key=key, reverse=descending)  # type: ignore[arg-type]
    got = store.query("", f"{'-' if descending else ''}{field}", 0, 1000).rows
    assert list(got) == wanted[:1000]


@settings(max_examples=200, deadline=None)
@given(st.text("ab\u00e9\u4e2d", max_size=40), st.text("ab\u00e9\u4e2d", min_size=1, max_size=17))
def test_occurrences(text: str, needle: str) -> None:
    data, wanted = text.encode(), needle.encode()
    assert _occurrences(data, wanted).tolist() == [i for i in range(len(data)) if data.startswith(wanted, i)]


def test_text_is_found_in_one_completion_alone(store: RunStore) -> None:
    for row in store.query("", "", 100, 20).rows:
        record = store.rollout(row.address, row.sample_index)
        assert record is not None
        found = store.query(f"text~{chr(34)}{record.text.replace(chr(92), chr(92) * 2).upper()}{chr(34)}", "", 0, 1000)
        assert row in found.rows
        assert all(one.preview.lower() == row.preview.lower() for one in found.rows)
