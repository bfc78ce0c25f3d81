"""`shoal play` and `shoal env check`, with a toy model's tokenizer and worlds in processes of their own."""

import io
from collections.abc import Sequence
from pathlib import Path

import pytest

from cluster.cli import main
from cluster.trying.play import call_of
from rollout.episodes.environment import ToolCall

TOY = ["model.path=tiny:"]
WORLDS = "tests.rollout.episodes.worlds"


def run(words: Sequence[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = main([*words, *TOY])
    told = capsys.readouterr()
    return code, told.out, told.err


def typing(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(text))


def test_a_person_wins_by_halves(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    typing("".join(f"{number}\n" for number in (3, 1, 5, 0, 2, 4, 6)), monkeypatch)
    code, out, _ = run(["play", "guess", "--seed", "0", "task.limits.turns=7"], capsys)
    assert code == 0
    assert "user: Guess a number, 0 to 6." in out
    assert "done after" in out
    assert "won" in out


def test_who_has_enough_leaves(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    typing("", monkeypatch)
    code, out, _ = run(["play", "guess"], capsys)
    assert (code, out.splitlines()[-1]) == (0, "left")


def test_a_person_calls_tools(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    typing('/slow {"seconds": 0.01}\n/broken\n/slow [1]\nhi\nho\n', monkeypatch)
    roomy = ["model.max_context_tokens=4000", "learner.micro_batch_tokens=4000", "rollout.sampling.max_tokens=40"]
    words = ["play", "guess", f"task.environment={WORLDS}:Echo", "task.limits.turns=9", *roomy]
    code, out, _ = run(words, capsys)
    assert code == 0
    assert "/slow (seconds)  Waits." in out
    assert "slow: waited 0.01" in out
    assert "broken: Error: KeyError: 'no such thing'" in out


def test_calls_of_a_person() -> None:
    assert call_of('/add {"a": 1}').calls == (ToolCall(name="add", arguments={"a": 1}),)
    assert call_of("/stop").calls == (ToolCall(name="stop", arguments={}),)
    assert call_of("/add 1").problem.startswith("The arguments of add are no JSON object")
    assert not call_of("say /add").calls


def test_random_replies_are_played_and_reported(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(["env", "check", "guess", "--episodes", "6", "--replies", "random"], capsys)
    assert code == 0
    assert "outcomes            done 6" in out
    assert "score won" in out
    assert "chat template: 1 of 10 probes" in out
    assert "replies: model" not in out


def test_a_script_is_said_in_turn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "replies.txt").write_text("".join(f"{number}\n" for number in range(60)))
    words = ["env", "check", "guess", "--episodes", "3", "--replies", str(tmp_path / "replies.txt")]
    code, out, _ = run([*words, f"task.environment={WORLDS}:Parrot", "task.size=3", "task.eval_fraction=0.0"], capsys)
    assert code == 0
    assert "turns               3 on average, 3 to 3" in out


def test_a_world_that_fails_is_told_and_exits_with_1(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["env", "check", "guess", "--episodes", "2", "--replies", "random", "task.size=2", "task.eval_fraction=0.0"]
    code, out, _ = run([*words, f"task.environment={WORLDS}:Bad", "task.params={what: raises}"], capsys)
    assert code == 1
    assert "outcomes            failed 2" in out
    assert "respond raised ValueError: out of cards" in out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["env", "check", "tiny"], "task.kind is 'reasoning_gym', and this is for environments"),
        (["play", "guess", "--seed", "99999"], "--seed is 99999, and no world of the training split has it"),
        (["env", "check", "guess", "--episodes", "0"], "--episodes is 0; at least one is played"),
        (["env", "check", "guess", "--replies", "nowhere.txt"], "--replies is 'nowhere.txt', which is neither"),
    ],
)
def test_what_cannot_be_tried_is_said_in_a_sentence(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run(words, capsys)
    assert code in (1, 2)
    assert sentence in err
    assert len(err.splitlines()) == 1
