"""The stream's order, resume and seeds."""

import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollout.config import CurriculumConfig
from rollout.errors import DataError
from rollout.prompts.prompt_building import joined, prompt_uid
from rollout.prompts.prompt_set import PromptReport, PromptSet
from rollout.prompts.stream import (
    PromptStream,
    PromptStreamState,
    TaskPlace,
    epoch_order,
    eval_prompts,
    next_task,
    sample_seed,
)
from rollout.types import Prompt


def prompt_set(size: int, task: str = "sums") -> PromptSet:
    """A set as the builder makes it, without tokenizer."""
    prompts = tuple(
        Prompt(
            uid=prompt_uid(task, f"{n}?"),
            epoch=0,
            index=n,
            token_ids=(n,),
            text=f"{n}?",
            question=f"{n}?",
            ground_truth=str(n),
            task=task,
        )
        for n in range(size)
    )
    report = PromptReport(
        task=task,
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
    assert (state.index, state.seed, state.fingerprint) == (taken, seed, prompts.fingerprint)
    before_there_were_several = PromptStreamState(index=taken, seed=seed, fingerprint=prompts.fingerprint)
    assert PromptStream.restore(prompts, before_there_were_several).state() == state
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


def test_tasks_take_turns_by_their_weights() -> None:
    # 3 : 1. Behind its share, times 4, before each prompt: (3, 1), (2, 2), (1, 3), (4, 0), (3, 1) and so on.
    asked = {"a": 0, "b": 0}
    turns = ""
    for _ in range(8):
        task = next_task(asked, {"a": 3.0, "b": 1.0})
        asked[task] += 1
        turns += task
    assert turns == "aabaaaba"


@settings(max_examples=60, deadline=None)
@given(weights=st.lists(st.floats(0.01, 100), min_size=1, max_size=6), taken=st.integers(1, 200))
def test_no_task_is_a_whole_prompt_ahead_of_its_share(weights: list[float], taken: int) -> None:
    shares = {str(n): weight for n, weight in enumerate(weights)}
    asked = dict.fromkeys(shares, 0)
    for _ in range(taken):
        asked[next_task(asked, shares)] += 1
        for name, weight in shares.items():
            assert asked[name] < weight / sum(weights) * sum(asked.values()) + 1 + 1e-9


def test_each_task_of_a_mix_is_asked_as_it_would_be_alone() -> None:
    sums, products = prompt_set(5), prompt_set(3, "products")
    stream = PromptStream(joined([sums, products]), seed=7, weights={"sums": 1.0, "products": 2.0})
    drawn = [stream.next() for _ in range(30)]
    assert [prompt.index for prompt in drawn] == list(range(30))
    for prompts, count in ((sums, 10), (products, 20)):
        alone = PromptStream(prompts, seed=7)
        expected = [alone.next() for _ in range(count)]
        of_task = [prompt for prompt in drawn if prompt.task == prompts.report.task]
        assert [(p.uid, p.epoch) for p in of_task] == [(p.uid, p.epoch) for p in expected]
    assert stream.state().places == {
        "sums": TaskPlace(passed=10, asked=10),
        "products": TaskPlace(passed=20, asked=20),
    }


CURRICULUM = CurriculumConfig(enabled=True, floor=0.1)
MIX = {"sums": 1.0, "products": 3.0}


def right_share(prompt: Prompt) -> float:
    """Every third question is never right, every third always, the others half of the time."""
    return (0.0, 0.5, 1.0)[int(prompt.ground_truth or 0) % 3]


@settings(max_examples=30, deadline=None)
@given(sizes=st.tuples(st.integers(1, 15), st.integers(1, 15)), seed=st.integers(0, 99), taken=st.integers(0, 80))
def test_a_mix_with_a_curriculum_goes_on_from_any_point(sizes: tuple[int, int], seed: int, taken: int) -> None:
    prompts = joined([prompt_set(sizes[0]), prompt_set(sizes[1], "products")])
    stream = PromptStream(prompts, seed=seed, weights=MIX, curriculum=CURRICULUM)

    def ask(stream: PromptStream, count: int) -> list[Prompt]:
        drawn = []
        for _ in range(count):
            drawn.append(stream.next())
            if len(drawn) % 4 == 0:  # in any order
                stream.learn([(prompt, right_share(prompt)) for prompt in reversed(drawn[-4:])])
        return drawn

    ask(stream, taken)
    state = stream.state()
    restored = PromptStream.restore(prompts, state, weights=MIX, curriculum=CURRICULUM)
    assert restored.state() == state
    assert ask(restored, 60) == ask(stream, 60)
    assert restored.state() == stream.state()


def test_a_curriculum_asks_more_often_what_there_is_to_learn_from() -> None:
    stream = PromptStream(prompt_set(90), seed=1, curriculum=CURRICULUM)
    drawn = []
    for _ in range(3000):
        drawn.append(stream.next())
        stream.learn([(drawn[-1], right_share(drawn[-1]))])
    # After a pass that asks all 90, each third has chances of 0.1, 1 and 0.1: 2910 prompts are 30 * 1.2 in a pass.
    counts = [sum(right_share(prompt) == share for prompt in drawn[90:]) for share in (0.0, 0.5, 1.0)]
    passes = 2910 / 36
    assert counts[1] == pytest.approx(30 * passes, rel=0.05)
    assert counts[0] == pytest.approx(3 * passes, rel=0.25)
    assert counts[2] == pytest.approx(3 * passes, rel=0.25)
    assert len({prompt.uid for prompt in drawn[90:]}) == 90, "every prompt is seen again"
    pairs = [(prompt.uid, prompt.epoch) for prompt in drawn]
    assert len(set(pairs)) == len(pairs), "so that no two groups have the same seeds"
    place = stream.state().places["sums"]
    assert place.asked == 3000
    assert place.passed == pytest.approx(90 * (1 + passes), rel=0.05)


def test_what_a_curriculum_knows_of_a_stream() -> None:
    slow = CURRICULUM.model_copy(update={"newest": 0.25})
    stream = PromptStream(prompt_set(3), seed=0, curriculum=slow)
    assert stream.facts().pass_rate_mean is None
    first, second = stream.next(), stream.next()
    # Of the same prompt: 1, then 1 - 1/4, whichever is told first.
    again = replace(first, index=2, epoch=1)
    stream.learn([(again, 0.0), (second, 0.0), (first, 1.0)])
    assert stream.state().pass_rates == {first.uid: 0.75, second.uid: 0.0}
    facts = stream.facts()
    assert (facts.num_known, facts.pass_rate_mean) == (2, 0.375)
    # 0.1 + 0.9 * 4 * 3/4 * 1/4, and 0.1.
    assert facts.chance_mean == pytest.approx((0.775 + 0.1) / 2)
    without = PromptStream(prompt_set(3), seed=0)
    without.learn([(first, 1.0)])
    assert without.state().pass_rates == {}


def test_an_evaluation_asks_as_many_of_each_task() -> None:
    chosen = eval_prompts(joined([prompt_set(5), prompt_set(2, "products")]), 3)
    assert [prompt.task for prompt in chosen] == ["sums"] * 3 + ["products"] * 2
    assert [prompt.index for prompt in chosen] == list(range(5))
    assert [p.uid for p in chosen[:3]] == [p.uid for p in eval_prompts(prompt_set(5), 3)]
