"""Prompt sets and what is left out of them; the stream's order, resume and seeds."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollout.config import JsonlTask, ModelConfig
from rollout.errors import ConfigError, DataError
from rollout.prompts.stream import (
    PromptBuilder,
    PromptReport,
    PromptSet,
    PromptStream,
    PromptStreamState,
    build_prompts,
    epoch_order,
    eval_prompts,
    prompt_uid,
    sample_seed,
)
from rollout.types import Prompt
from tests.rollout.byte_tokenizer import byte_tokenizer

MODEL = ModelConfig(path="unused", max_context_tokens=40)


def write(path: Path, questions: list[str]) -> str:
    path.write_text("".join(json.dumps({"question": q, "answer": "1", "level": 2}) + "\n" for q in questions))
    return str(path)


def prompt_set(size: int) -> PromptSet:
    """A set as the builder makes it, without tokenizer."""
    prompts = tuple(
        Prompt(
            uid=prompt_uid("sums", f"{n}?"),
            epoch=0,
            index=n,
            token_ids=(n,),
            text=f"{n}?",
            question=f"{n}?",
            ground_truth=str(n),
            task="sums",
        )
        for n in range(size)
    )
    report = PromptReport(
        task="sums",
        split="train",
        num_prompts=size,
        num_too_long=0,
        num_duplicates=0,
        num_in_eval=0,
        skipped={},
        max_prompt_tokens=8,
        longest_tokens=1,
        data_fingerprint="",
    )
    return PromptSet(prompts=prompts, report=report, fingerprint=f"{size:064d}")


def test_a_prompt_holds_what_the_row_said(tmp_path: Path) -> None:
    task = JsonlTask(path=write(tmp_path / "sums.jsonl", ["1+0?"]), eval_fraction=0)
    (prompt,) = build_prompts(byte_tokenizer(), task, MODEL, split="train", max_tokens=8).prompts
    assert prompt.uid == hashlib.sha256(b"sums\x001+0?").hexdigest()[:16]
    assert prompt.text == "<|user|>1+0?<|end|><|assistant|>"
    assert len(prompt.token_ids) == 7
    assert (prompt.question, prompt.ground_truth, prompt.task) == ("1+0?", "1", "sums")
    assert prompt.row == {"level": 2}
    assert prompt.group_id == f"000000-{prompt.uid}"


def test_prompts_that_leave_no_room_are_counted(tmp_path: Path) -> None:
    # Context 40 less 8 for the completion is 32; a question of n bytes makes n + 3 tokens.
    questions = ["x" * 28, "x" * 29, "x" * 30, "x" * 31]
    task = JsonlTask(path=write(tmp_path / "sums.jsonl", [*questions, questions[0]]), eval_fraction=0)
    built = build_prompts(byte_tokenizer(), task, MODEL, split="train", max_tokens=8)
    assert [len(prompt.token_ids) for prompt in built.prompts] == [31, 32]
    report = built.report
    assert (report.num_prompts, report.num_too_long, report.num_duplicates) == (2, 2, 1)
    assert (report.max_prompt_tokens, report.longest_tokens) == (32, 32)
    assert str(report) == "sums, train: 2 prompts, left out: 2 longer than 32 tokens, 1 duplicates"
    with pytest.raises(DataError, match="all 4 prompts for train are longer than 10 tokens, the shortest has 31"):
        build_prompts(byte_tokenizer(), task, MODEL, split="train", max_tokens=30)
    with pytest.raises(ConfigError, match="max_tokens is 40, which leaves no room"):
        PromptBuilder(byte_tokenizer(), task, MODEL, max_tokens=40)


def test_the_fingerprint_follows_what_the_policy_reads(tmp_path: Path) -> None:
    task = JsonlTask(path=write(tmp_path / "sums.jsonl", ["1?", "2?"]), eval_fraction=0)

    def fingerprint(task: JsonlTask) -> str:
        return build_prompts(byte_tokenizer(), task, MODEL, split="train", max_tokens=8).fingerprint

    assert fingerprint(task) == fingerprint(task)
    assert fingerprint(task) != fingerprint(task.model_copy(update={"template": "{question}!"}))


def test_a_template_without_question_is_refused() -> None:
    with pytest.raises(ValueError, match=r"template has no \{question\}"):
        JsonlTask(path="unused", template="Solve it.")


@settings(max_examples=40, deadline=None)
@given(size=st.integers(1, 25), seed=st.integers(0, 2**31 - 1), epochs=st.integers(1, 3))
def test_every_epoch_gives_each_prompt_once(size: int, seed: int, epochs: int) -> None:
    prompts = prompt_set(size)
    stream = PromptStream(prompts, seed=seed)
    drawn = [stream.next() for _ in range(size * epochs)]
    assert [prompt.index for prompt in drawn] == list(range(size * epochs))
    for epoch in range(epochs):
        part = drawn[epoch * size : (epoch + 1) * size]
        assert {prompt.epoch for prompt in part} == {epoch}
        assert sorted(prompt.question for prompt in part) == sorted(p.question for p in prompts.prompts)
    assert len({prompt.group_id for prompt in drawn}) == len(drawn)


@settings(max_examples=40, deadline=None)
@given(size=st.integers(1, 15), seed=st.integers(0, 99), taken=st.integers(0, 50))
def test_a_stream_goes_on_from_any_point(size: int, seed: int, taken: int) -> None:
    prompts = prompt_set(size)
    stream = PromptStream(prompts, seed=seed)
    for _ in range(taken):
        stream.next()
    state = stream.state()
    assert state == PromptStreamState(index=taken, seed=seed, fingerprint=prompts.fingerprint)
    restored = PromptStream.restore(prompts, state)
    assert [restored.next() for _ in range(2 * size)] == [stream.next() for _ in range(2 * size)]


def test_a_stream_is_not_restored_on_other_prompts() -> None:
    state = PromptStream(prompt_set(5), seed=0).state()
    with pytest.raises(DataError, match="are not those that the run was started with"):
        PromptStream.restore(prompt_set(6), state)


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    uids = tuple(prompt.uid for prompt in prompt_set(50).prompts)
    orders = [tuple(epoch_order(uids, seed, epoch)) for seed in (0, 1) for epoch in (0, 1)]
    assert len(set(orders)) == 4
    # The rank of prompt 0 is uniform on 0..49: mean 24.5, standard deviation 14.4, of 400 epochs' mean 0.72.
    ranks = [epoch_order(uids, 0, epoch).index(0) for epoch in range(400)]
    assert abs(sum(ranks) / 400 - 24.5) < 3 * 0.72


def test_order_and_seeds_are_the_same_in_every_process() -> None:
    code = (
        "from rollout.prompts.stream import epoch_order, sample_seed\n"
        "print(epoch_order(tuple('abcdef'), 3, 1), sample_seed(3, 'train', 1, 'abc', 0))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": "."},
            capture_output=True,
            text=True,
            timeout=60,
        ).stdout
        for seed in ("1", "2")
    }
    assert outputs == {f"{epoch_order(tuple('abcdef'), 3, 1)} {sample_seed(3, 'train', 1, 'abc', 0)}\n"}


def test_evaluation_takes_the_same_prompts_each_time() -> None:
    few, many = eval_prompts(prompt_set(30), 4), eval_prompts(prompt_set(30), 12)
    assert few == many[:4]
    assert [prompt.index for prompt in many] == list(range(12))
    assert {prompt.epoch for prompt in many} == {0}
    assert [prompt.question for prompt in many] != [f"{n}?" for n in range(12)]
    assert len(eval_prompts(prompt_set(3), 12)) == 3


def test_seeds_of_samples() -> None:
    # Pinned: another value would change what a resumed or retried run samples.
    assert sample_seed(0, "train", 0, "5f1c09be12aa03d4", 0) == 3845847623571512348
    arguments = [
        (run, purpose, epoch, uid, sample)
        for run in (0, 1)
        for purpose in ("train", "eval")
        for epoch in (0, 1)
        for uid in ("a", "b")
        for sample in range(8)
    ]
    seeds = [sample_seed(*values) for values in arguments]
    assert len(set(seeds)) == len(arguments)
    assert all(0 <= seed < 2**63 for seed in seeds)
