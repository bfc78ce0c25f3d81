"""`shoal.load_run`: the files of a run as DataFrames."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pandas
import pyarrow
import pytest

from cluster.dashboard.exports.frames import Run, load_run
from cluster.dashboard.index.filters import FilterError
from cluster.record.run_directory import RunDirectory
from rollout.errors import ConfigError
from tests.cluster.dashboard.small_run import add_step, make_run

ROOT = Path(__file__).parents[4]


@pytest.fixture
def directory(tmp_path: Path) -> RunDirectory:
    return make_run(tmp_path / "a")


@pytest.fixture
def run(directory: RunDirectory) -> Iterator[Run]:
    with load_run(directory.path) as run:
        yield run


def test_metrics_and_evaluations(run: Run) -> None:
    metrics, evaluations = run.metrics(), run.evaluations()
    assert isinstance(metrics, pandas.DataFrame)
    assert metrics["step"].tolist() == [0, 1, 2]
    assert metrics["reward/mean"].tolist() == [0.5, 0.5, 0.5]
    assert evaluations[["step", "eval/pass_at_1"]].to_numpy().tolist() == [[0, 0.5]]


def test_rollouts_that_pass_a_filter(run: Run) -> None:
    rows = run.rollouts("phase=train & step:1-2")
    assert len(rows) == 12  # two steps of two groups of three
    assert set(rows["step"]) == {1, 2}
    assert rows["reward.math"].sum() == 4.0  # one right of each group; absent where it was not scored
    assert rows["correct"].isna().sum() == 4
    assert len(rows[rows["correct"].fillna(False)]) == 4
    assert rows["lag"].tolist() == rows["step"].tolist()  # sampled by version 0
    assert rows.loc[rows["sample_index"] == 2, "detail"].tolist() == ["took too long"] * 4
    assert "token_ids" not in rows
    assert "components" not in rows
    tokens = run.rollouts("step:1 & correct", tokens=True)
    assert [list(ids) for ids in tokens["token_ids"]] == [[10, 11], [10, 11]]
    assert run.rollouts("phase=eval")["lag"].isna().all()
    assert len(run.rollouts("step:99")) == 0
    assert "completion_text" in run.rollouts("step:99")
    with pytest.raises(FilterError):
        run.rollouts("phase")


def test_groups_are_counted_over_what_passes(run: Run) -> None:
    groups = run.groups("phase=train")
    assert len(groups) == 6
    first = groups.iloc[0]
    # Rewards 1 and 0, the third was not scored: mean and standard deviation are 0.5.
    assert first[["num_rollouts", "num_scored", "num_correct"]].tolist() == [3, 2, 1]
    assert first[["pass_rate", "reward_mean", "reward_std", "length_mean"]].tolist() == [0.5, 0.5, 0.5, 2.0]
    assert run.groups("step:1 & correct")["pass_rate"].tolist() == [1.0, 1.0]
    assert run.groups("outcome=timeout & step:1")["pass_rate"].isna().all()


def test_events(run: Run) -> None:
    events = run.events()
    spans = events[events["kind"] == "generate"]
    assert (spans["end_s"] - spans["start_s"]).tolist() == [2.0] * 6
    assert json.loads(spans["extra"].iloc[0])["tokens"] == 6
    assert len(spans["ids"].iloc[0]) == 1
    assert spans["step"].isna().all()
    assert events.loc[events["kind"] == "train", "step"].tolist() == [0, 1, 2]


def test_a_run_that_goes_on_is_read_again(directory: RunDirectory, run: Run) -> None:
    assert len(run.metrics()) == 3
    add_step(directory, 3)
    assert len(run.metrics()) == 4
    assert len(run.rollouts("step:3")) == 6
    assert run.config["steps"] == directory.read_config().steps
    assert run.summary is None
    assert repr(run) == f"Run({str(directory.path)!r}, status='live', frames='pandas')"


def test_what_cannot_be_read_is_warned_of(directory: RunDirectory, run: Run) -> None:
    (directory.path / "rollouts" / "step-000001.parquet").write_bytes(b"torn")
    with pytest.warns(UserWarning, match=r"rollouts/step-000001\.parquet: is no whole table"):
        assert len(run.rollouts("phase=train")) == 12


def test_polars_makes_the_frames_where_it_is_asked_for(
    directory: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[pyarrow.Table] = []

    def from_arrow(table: pyarrow.Table) -> str:
        given.append(table)
        return "a polars frame"

    polars = SimpleNamespace(from_arrow=from_arrow, __spec__=object())
    monkeypatch.setitem(sys.modules, "polars", polars)
    with load_run(directory.path, frames="polars") as run:
        assert run.rollouts("step:1") == "a polars frame"
        assert run.metrics() == "a polars frame"
    assert all(isinstance(table, pyarrow.Table) for table in given)
    assert [table.num_rows for table in given] == [6, 3]


def test_without_a_library_for_frames_it_says_so(directory: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pandas or polars is needed; pip install pandas"):
        load_run(directory.path)
    with pytest.raises(ConfigError, match="polars is needed; pip install polars"):
        load_run(directory.path, frames="polars")
    with pytest.raises(ConfigError, match="allowed: pandas, polars"):
        load_run(directory.path, frames="excel")  # type: ignore[arg-type]


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no run"):
        load_run(tmp_path)


@pytest.mark.parametrize("kind", ["editable", "wheel"])
def test_an_installation_has_the_package(tmp_path: Path, kind: str) -> None:
    """The package `shoal` of an editable installation is cluster/notebook, that of a wheel is in it."""
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("rollout", "reward", "learner", "cluster"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    site = tmp_path / "site"
    site.mkdir()
    build = f"from setuptools import build_meta as b; print(b.build_{kind}({str(tmp_path)!r}))"
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True, timeout=120)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        file.extractall(site)
    # -S, and this installation before that of the tests, which has the same name and would be taken for it.
    folders = [str(site), sysconfig.get_paths()["purelib"]]
    look = f"import site; [site.addsitedir(folder) for folder in {folders}]; import shoal; print(shoal.__file__)"
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    found = subprocess.run(
        [sys.executable, "-S", "-c", f"{look}; print(shoal.load_run.__module__)"],
        cwd=tmp_path,
        env=environ,
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    ).stdout.split()
    where = source / "cluster" / "notebook" if kind == "editable" else site / "shoal"
    assert found == [str(where / "__init__.py"), "cluster.dashboard.exports.frames"]
