"""Tags, notes and the archive of runs."""

from pathlib import Path

import pytest

from cluster import cli
from cluster.dashboard.files.annotations import AnnotationError
from cluster.dashboard.files.run_tags import RunTags, read_tags, write_tags
from tests.cluster.dashboard.served import serving
from tests.cluster.dashboard.small_run import make_run


def test_a_run_is_tagged_and_archived(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "runs" / "a").path
    assert cli.main(["tag", str(run), "--add", "sweep", "--add", " best ", "--note", "so"]) == 0
    assert capsys.readouterr().out == f"{run}: best, sweep, note: so\n"
    assert cli.main(["tag", str(run), "--remove", "sweep", "--archive"]) == 0
    assert capsys.readouterr().out == f"{run}: best, archived, note: so\n"
    assert read_tags(run) == RunTags(tags=("best",), note="so", archived=True)
    with serving([tmp_path / "runs"]) as served:
        (info,) = served.get("/api/runs")["runs"]
        assert (info["tags"], info["note"], info["archived"]) == (["best"], "so", True)
    assert cli.main(["tag", str(run), "--no-archive", "--note", "", "--remove", "best"]) == 0
    assert capsys.readouterr().out == f"{run}: no tags\n"
    assert cli.main(["tag", str(run), "--add", "a,b"]) == 2
    assert "the tag 'a,b' is none" in capsys.readouterr().err
    assert cli.main(["tag", str(tmp_path), "--add", "a"]) == 2


def test_what_is_no_file_of_tags_says_nothing(tmp_path: Path) -> None:
    for text in ("", "[]", '{"tags": 3}', '{"tags": ["\\u0000"]}', "[" * 5000):
        (tmp_path / "tags.json").write_text(text)
        assert read_tags(tmp_path) == RunTags()
    with pytest.raises(AnnotationError, match="there are 21 tags, allowed: 20"):
        RunTags(tags=tuple(str(number) for number in range(21)))
    outside = tmp_path / "outside.json"
    outside.write_text('{"tags": ["x"]}')
    (tmp_path / "tags.json").unlink()
    (tmp_path / "tags.json").symlink_to(outside)
    assert read_tags(tmp_path) == RunTags()
    write_tags(tmp_path, RunTags(tags=("y",)))  # replaces the link itself
    assert outside.read_text() == '{"tags": ["x"]}'
