"""What servers answered is asked once: by the same worker, by another, after a crash, with a file that is damaged."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from reward.errors import RewardError
from reward.judging.journal import FOLDER, Journal
from reward.types import RewardOutcome
from tests.reward.judging.asking import items, judge, judged
from tests.reward.judging.scripted_judge import judging
from tests.rollout.endpoint.scripted_server import Reply, serving

ONE, TWO = "a" * 64, "b" * 64
GOOD = judging(lambda asked: asked.says(score=len(asked.texts["COMPLETION"])))


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines() if line]


def test_a_resumed_scoring_asks_nothing_twice(tmp_path: Path) -> None:
    group = items("a", "bb", "ccc")
    with serving(GOOD) as server:
        config = judge(server.base_url)
        (first,) = judged(config, group, run_dir=tmp_path)
        (again,) = judged(config, group, run_dir=tmp_path)
        (elsewhere,) = judged(config, group, run_dir=tmp_path, worker="reward-1")
    assert len(server.requests) == 3
    assert first.answers == again.answers == elsewhere.answers
    assert (again.cost.calls, again.cost.cached, again.cost.attempts, again.cost.prompt_tokens) == (0, 3, 0, 0)
    assert sorted(path.name for path in (tmp_path / FOLDER).iterdir()) == ["reward-0.jsonl", "reward-1.jsonl"]
    (one, *_) = lines(tmp_path / FOLDER / "reward-0.jsonl")
    assert (one["component"], one["prompt_tokens"], one["completion_tokens"]) == ("judge", 100, 10)
    assert isinstance(one["answer"], dict)
    assert '"score"' in str(one["answer"]["text"])
    assert "key" in one
    assert "sesame" not in json.dumps(one)


@pytest.mark.parametrize("mode", ["pairwise", "rank"])
def test_nor_does_a_comparison(mode: str, tmp_path: Path) -> None:
    says: dict[str, Any] = {"better": "A"} if mode == "pairwise" else {"ranking": [2, 3, 1]}
    script = judging(lambda asked: asked.says(**says))
    with serving(script) as server:
        config = judge(server.base_url, mode=mode)
        (first,) = judged(config, items("a", "bb", "ccc"), run_dir=tmp_path, seed=3)
        asked = len(server.requests)
        (again,) = judged(config, items("a", "bb", "ccc"), run_dir=tmp_path, seed=3)
    assert len(server.requests) == asked == (6 if mode == "pairwise" else 1)
    assert first.answers == again.answers


def test_what_differs_is_asked_anew(tmp_path: Path) -> None:
    with serving(GOOD) as server:
        changes: list[dict[str, Any]] = [{}, {"model": "n"}, {"temperature": 0.5}, {"instructions": "x"}]
        for number, params in enumerate(changes, start=1):
            judged(judge(server.base_url, **params), items("a"), run_dir=tmp_path)
            assert len(server.requests) == number
        judged(judge(server.base_url), items("a"), run_dir=tmp_path, seed=1)
        assert len(server.requests) == 5


def test_equal_completions_of_a_group_are_one_request() -> None:
    with serving(GOOD) as server:
        (found,) = judged(judge(server.base_url), items("same", "same", "other", "same"))
    assert len(server.requests) == 2
    assert [answer.value for answer in found.answers] == [0.4, 0.4, 0.5, 0.4]
    assert (found.cost.calls, found.cost.cached) == (2, 2)


def test_a_malformed_verdict_stays_one_and_a_failure_is_asked_again(tmp_path: Path) -> None:
    replies: list[Reply] = []

    def script(path: str, body: object) -> Reply:
        return replies.pop(0) if replies else GOOD(path, body)

    with serving(judging(lambda asked: "no verdict")) as server:
        config = judge(server.base_url)
        for _ in range(2):
            (found,) = judged(config, items("a"), run_dir=tmp_path)
            assert found.answers[0].outcome is RewardOutcome.INVALID
        assert len(server.requests) == 1
    replies.append((400, {}, "not now"))
    with serving(script) as server:
        outcomes = [
            judged(judge(server.base_url), items("a"), run_dir=tmp_path)[0].answers[0].outcome for _ in range(3)
        ]
        assert outcomes == [RewardOutcome.ERROR, RewardOutcome.OK, RewardOutcome.OK]
        assert len(server.requests) == 2


def test_lines_are_found_again_and_a_torn_one_is_skipped(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "reward-0")
    journal.add(ONE, {"answer": {"text": "\ud800 \u4f60"}})
    journal.add(TWO, {"answer": {"text": "two"}})
    assert journal.find(ONE) == {"key": ONE, "answer": {"text": "\ud800 \u4f60"}}
    assert journal.find("a" * 32 + "c" * 32) is None  # the first half alone is the same
    journal.sync()
    journal.close()
    path = tmp_path / FOLDER / "reward-0.jsonl"
    data = path.read_bytes()
    path.write_bytes(data[:-9])
    again = Journal(tmp_path, "reward-0")
    assert (len(again), again.num_damaged) == (1, 1)
    assert again.find(TWO) is None
    again.add(TWO, {"answer": {"text": "three"}})
    again.close()
    last = Journal(tmp_path, "reward-1")
    assert last.find(TWO) == {"key": TWO, "answer": {"text": "three"}}
    assert (len(last), last.num_damaged) == (2, 1)
    last.close()


@pytest.mark.parametrize("junk", [b"", b"\n\n", b"[1]\n", b'{"key": 3}\n', b'{"key": "zz"}\n', b"\xff\xfe\n", b"{}\n"])
def test_what_is_none_of_ours_is_skipped(junk: bytes, tmp_path: Path) -> None:
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "reward-7.jsonl").write_bytes(junk)
    journal = Journal(tmp_path, "reward-0")
    assert len(journal) == 0
    assert journal.num_damaged == (1 if junk.strip() else 0)
    journal.close()


def test_an_answer_is_kept_when_the_process_is_killed(tmp_path: Path) -> None:
    code = textwrap.dedent(f"""
        import os, pathlib, signal
        from reward.judging.journal import Journal
        journal = Journal(pathlib.Path({str(tmp_path)!r}), "reward-0")
        journal.add({ONE!r}, {{"answer": {{"text": "kept"}}}})
        os.kill(os.getpid(), signal.SIGKILL)
    """)
    ended = subprocess.run([sys.executable, "-c", code], timeout=60, check=False)
    assert ended.returncode == -9
    journal = Journal(tmp_path, "reward-0")
    assert journal.find(ONE) == {"key": ONE, "answer": {"text": "kept"}}
    journal.close()


def test_without_a_run_it_lasts_as_long_as_the_worker(tmp_path: Path) -> None:
    journal = Journal(None, "reward-0")
    journal.add(ONE, {"answer": {}})
    assert journal.find(ONE) == {"key": ONE, "answer": {}}
    journal.close()
    journal.close()
    assert len(journal) == 0


def test_a_folder_that_cannot_be_written_and_a_full_disk_are_said(tmp_path: Path) -> None:
    (tmp_path / FOLDER).write_text("a file")
    with pytest.raises(RewardError, match=r"reward-0 cannot keep what servers answer in .*/verdicts: File exists"):
        Journal(tmp_path, "reward-0")
    journal = Journal(None, "reward-0")
    full = os.open("/dev/full", os.O_RDWR)
    os.dup2(full, journal._files[0])
    os.close(full)
    with pytest.raises(RewardError, match="No space left on device; make room there"):
        journal.add(ONE, {"answer": {}})
    assert journal.find(ONE) is None
    journal.close()
