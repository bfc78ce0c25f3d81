"""`shoal export-report`: what is in the file, how large it is, and that nothing in it leads to what is not."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from cluster import cli
from cluster.dashboard.exports.report import (
    MAX_STEPS,
    Answers,
    Choice,
    ends_first,
    evenly,
    export_report,
    parse_steps,
    telling_groups,
)
from cluster.dashboard.files.annotations import Annotation
from cluster.dashboard.files.encoding import encode
from cluster.dashboard.web.open_run import OpenRun
from cluster.record.run_directory import RunDirectory
from rollout.errors import ConfigError
from tests.cluster.dashboard.small_runs import MIXED, QUESTIONS, open_store, write_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    return write_run(tmp_path_factory.mktemp("runs") / "one", num_steps=MAX_STEPS + 8)


def collected(run: RunDirectory, max_bytes: int, choice: Choice | None = None) -> dict[str, Any]:
    store = open_store(run.path)
    try:
        opened = OpenRun(name="one", path=run.path, revision=1, store=store)
        return Answers(opened, store, max_bytes, choice or Choice()).collect()
    finally:
        store.close()


@pytest.fixture(scope="module")
def answers(run: RunDirectory) -> dict[str, Any]:
    return collected(run, 3_000_000)


def test_the_pages_about_the_whole_run_are_in_it(answers: dict[str, Any]) -> None:
    pages = ("overview", "doctor", "config", "fleet", "ledger", "ledger/groups", "timeline")
    assert {f"/api/runs/one/{page}" for page in pages} | {"/api/runs", "/api/runs/one", "/api/views"} <= set(answers)
    assert [(info["run"], info["path"]) for info in answers["/api/runs"]["runs"]] == [("one", "one")]
    assert answers["/api/runs/one"]["info"]["path"] == "one"  # not where the run lies on this machine


def rows_of(answers: dict[str, Any]) -> list[dict[str, Any]]:
    table = answers["/api/runs/one/rollouts"]
    return [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]


def test_the_table_has_whole_texts_and_what_a_filter_asks_of_a_group(answers: dict[str, Any]) -> None:
    rows = rows_of(answers)
    assert answers["/api/runs/one/rollouts"]["num_rollouts"] == 168  # 20 steps of 8, 2 evaluations of 4
    assert len(rows) == MAX_STEPS * 8 + 2 * 4
    first = [row for row in rows if row["phase"] == "train" and row["step"] == 0][:4]
    assert [row["text"] for row in first] == [sample.text for sample in MIXED]
    assert [row["question"] for row in first] == [QUESTIONS[0]] * 4
    assert [(row["pass_rate"], row["reward_std"]) for row in first] == [(0.5, 0.5)] * 4  # rewards 1, 0, 1, 0
    order = [(row["step"], row["phase"] == "train") for row in rows]
    assert order == sorted(order)  # of dispatch: an evaluation before the step of its number


def test_what_people_noted_is_in_it(tmp_path: Path) -> None:
    run = write_run(tmp_path / "one", num_steps=1)
    store = open_store(run.path)
    row = store.step_rows("train", 0)[2]
    store.annotations.write(row.address, row.sample_index, Annotation(label="odd", bookmarked=True))
    store.close()
    noted = [row["annotation"] for row in rows_of(collected(run, 3_000_000)) if row["annotation"]["bookmarked"]]
    assert noted == [{"label": "odd", "note": None, "bookmarked": True}]


def test_chosen_steps_alone_are_in_it(run: RunDirectory) -> None:
    answers = collected(run, 3_000_000, Choice(steps=((3, 4), (20, 20))))
    assert answers["/api/runs/one/steps?phase=train"]["steps"] == [3, 4]
    assert answers["/api/runs/one/steps?phase=eval"]["steps"] == [20]
    assert {(row["phase"], row["step"]) for row in rows_of(answers)} == {("train", 3), ("train", 4), ("eval", 20)}


def test_a_filter_chooses_rollouts_and_the_groups_that_have_some(run: RunDirectory) -> None:
    answers = collected(run, 3_000_000, Choice(steps=((0, 1),), filter="phase=train & truncated"))
    rows = rows_of(answers)
    assert rows
    assert {(row["finish"], row["phase"]) for row in rows} == {("length", "train")}
    groups = {key.rsplit("/", 1)[1] for key in answers if key.startswith("/api/runs/one/groups/")}
    assert groups == {row["group_id"] for row in rows}
    assert {row["pass_rate"] for row in rows} == {0.5}  # of the whole group, not of what passes


def test_ranges_of_steps() -> None:
    assert parse_steps("0,10-20, 39") == [(0, 0), (10, 20), (39, 39)]
    for text, said in {"": "''", "1,,2": "''", "a": "'a'", "-3": "'-3'", "1-": "'1-'", "5-1": "write 1-5"}.items():
        with pytest.raises(ConfigError, match=re.escape(said)):
            parse_steps(text)


def test_a_choice_of_nothing_is_said(run: RunDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["export-report", str(run.path), "-o", str(tmp_path / "x.html")]
    for more, said in {
        ("--steps", "500-600"): "has no rollouts of the steps that --steps names; its steps are 0 to 19",
        ("--filter", "len>1000"): "passes --filter 'len>1000'; try a wider one",
        ("--filter", "gpa>1"): "filter, character",
    }.items():
        assert cli.main([*command, *more]) != 0
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1
    assert not (tmp_path / "x.html").exists()


def test_steps_lead_only_to_steps_that_are_in_it(answers: dict[str, Any]) -> None:
    steps = answers["/api/runs/one/steps?phase=train"]["steps"]
    assert len(steps) == MAX_STEPS
    assert (steps[0], steps[-1]) == (0, 19)
    for before, step, after in zip([None, *steps], steps, [*steps[1:], None], strict=False):
        page = answers[f"/api/runs/one/steps/train/{step}"]
        assert (page["step"], page["previous"], page["next"]) == (step, before, after)
    assert answers["/api/runs/one/steps?phase=eval"]["steps"] == [0, 20]


def test_groups_and_completions_lead_only_to_what_is_in_it(answers: dict[str, Any]) -> None:
    groups = {key: value for key, value in answers.items() if key.startswith("/api/runs/one/groups/")}
    rollouts = {key for key in answers if re.fullmatch(r"/api/runs/one/rollouts/\w+/\d+/[^/]+/\d+", key)}
    assert len(groups) == 2 * MAX_STEPS + 2  # both groups of each step, the one of each evaluation
    assert len(rollouts) == 4 * len(groups)
    for key, value in answers.items():
        kind = "groups" if key in groups else "rollouts" if key in rollouts else None
        for way in ("previous", "next"):
            where = value.get(way) if kind else None
            if where is not None:
                parts = where.split("/") if isinstance(where, str) else [str(part) for part in where.values()]
                assert f"/api/runs/one/{kind}/{'/'.join(parts)}" in answers
    assert any(answers[key]["next"] for key in rollouts)


def test_what_does_not_fit_is_left_out_and_what_matters_most_is_in(run: RunDirectory) -> None:
    answers = collected(run, 120_000)
    assert len(encode(answers)) < 125_000
    assert {"/api/runs/one", "/api/runs/one/overview", "/api/runs/one/doctor"} <= set(answers)
    steps = answers["/api/runs/one/steps?phase=train"]["steps"]
    assert 0 < len(steps) <= MAX_STEPS
    assert all(f"/api/runs/one/steps/train/{step}" in answers for step in steps)


def test_the_file(run: RunDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new folder" / "report.html"
    assert cli.main(["export-report", str(run.path), "-o", str(out)]) == 0
    printed = f"{out}, {out.stat().st_size / 1e6:.1f} MB: {MAX_STEPS} training steps, 104 of 168 rollouts\n"
    assert capsys.readouterr().out == printed
    html = out.read_text(encoding="utf-8")
    data = re.search(r'<script type="application/json" id="report">(.*?)</script>', html, re.S)
    assert data is not None
    assert json.loads(data[1])["/api/runs/one"]["info"]["step"] == 20
    assert out.stat().st_size < 5_000_000
    assert "<title>one - Shoal</title>" in html


def test_mistakes_are_one_sentence(run: RunDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="is no run directory"):
        export_report(tmp_path, tmp_path / "x.html")
    with pytest.raises(ConfigError, match="is a folder; name the file"):
        export_report(run.path, tmp_path)
    (tmp_path / "file").write_text("")
    assert cli.main(["export-report", str(run.path), "-o", str(tmp_path / "file" / "x.html")]) == 1
    assert capsys.readouterr().err.startswith(f"shoal: cannot write {tmp_path}/file/x.html: ")


def test_choices() -> None:
    assert evenly(range(100), 4) == [0, 33, 66, 99]
    assert evenly([1, 2], 4) == [1, 2]
    assert ends_first([1, 2, 3]) == [3, 1, 2]
    groups = [
        {"group_id": name, "reward_mean": mean, "reward_std": std}
        for name, mean, std in [
            ("a", 0.5, 0.1),
            ("b", 0.9, 0.0),
            ("c", None, None),
            ("d", 0.5, 0.5),
            ("e", 0.1, 0.2),
            ("f", 0.3, 0.1),
        ]
    ]
    assert telling_groups(groups) == ["a", "f", "b", "e", "d"]
    assert telling_groups([]) == []
