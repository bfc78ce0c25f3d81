"""A step that is given up: by every rank before the same pass, before the weights move, and what is saved then."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, TypeAlias

import pytest
import torch
from transformers.modeling_layers import GradientCheckpointingLayer

from learner.algorithm.plan import PlanSettings, plan_step, shares
from learner.backend.engine import RendezvousAddress
from learner.saving.files import checkpoint_name, publish, unfinished_path, write_manifest
from learner.step_gate import StepGate
from learner.types import TrainBatch
from rollout.errors import StepGivenUpError
from tests.learner.ranks import run_ranks
from tests.learner.samples import save_toy_model, train_batch, train_step
from tests.learner.test_worker import make_worker, weights_of

Place: TypeAlias = Literal[
    "between passes", "at the end", "in a forward pass", "in a backward pass", "in a backward pass, recomputed"
]

Case: TypeAlias = tuple[str, str, Place]
"""(ranks, ZeRO stage, where the step is given up)"""
Digests: TypeAlias = tuple[str, str, str, str]
"""After one step; after one that was given up; of three steps without a stop; and of three steps, the second of which
was given up by a worker before."""
BETWEEN: tuple[Place, ...] = ("between passes", "at the end")
WITHIN: tuple[Place, ...] = ("in a forward pass", "in a backward pass", "in a backward pass, recomputed")
TOGETHER: list[Case] = [("2", stage, place) for stage in "0123" for place in BETWEEN]
ALONE: list[Case] = [
    *[("1", "0", place) for place in BETWEEN],
    *[("1", stage, place) for stage in "012" for place in WITHIN],
]


def passes(gate: StepGate, step: int, number: int, at_pass: dict[int, Any] | None = None) -> int:
    """Goes through a step of that many passes; the pass before which it was given up, or -1."""
    gate.begin(step)
    for i in range(number):
        try:
            gate.enter_pass()
        except StepGivenUpError:
            return i
        if at_pass and i in at_pass:
            at_pass[i]()
    try:
        gate.commit()
    except StepGivenUpError:
        return number
    return -1


def test_nobody_asks_and_the_step_ends() -> None:
    gate = StepGate()
    assert passes(gate, 3, 4) == -1
    assert gate.hold(3) is None  # its weights have moved
    assert gate.hold(2) is None


def test_passes_of_a_step_that_pauses_are_counted_together() -> None:
    gate = StepGate()
    gate.begin(0)
    gate.enter_pass()
    gate.enter_pass()
    gate.pause()
    gate.within_pass()
    assert gate.hold(0) == 2
    gate.decide(0, 3)
    gate.within_pass()  # of something else
    gate.begin(0)
    gate.enter_pass()
    with pytest.raises(StepGivenUpError, match="within its pass 2"):
        gate.within_pass()
    gate.pause()
    gate.within_pass()
    gate.begin(0)
    with pytest.raises(StepGivenUpError, match="before its pass 3"):
        gate.enter_pass()
    gate.end()
    assert gate.hold(0) is None


def test_ranks_at_different_passes_give_up_before_the_same_one() -> None:
    gates = [StepGate(), StepGate()]
    reached = [threading.Event(), threading.Event()]
    asked = threading.Event()

    def step(rank: int, at: int) -> int:
        def wait() -> None:
            reached[rank].set()
            assert asked.wait(10)

        return passes(gates[rank], 0, 6, {at: wait})

    with ThreadPoolExecutor(2) as pool:
        found = [pool.submit(step, 0, 1), pool.submit(step, 1, 3)]
        assert all(event.wait(10) for event in reached)
        held = [gate.hold(0) for gate in gates]
        assert held == [2, 4]
        asked.set()
        with pytest.raises(TimeoutError):
            found[0].result(0.05)  # it waits before pass 2
        for gate in gates:
            gate.decide(0, 4)
        assert [one.result(10) for one in found] == [4, 4]


def test_a_step_goes_on_where_another_rank_is_past_it() -> None:
    gate = StepGate()

    def decide() -> None:
        assert gate.hold(0) == 2
        threading.Timer(0.05, gate.decide, (0, None)).start()

    assert passes(gate, 0, 3, {1: decide}) == -1
    assert passes(gate, 1, 3) == -1


def test_a_step_is_given_up_before_it_began_and_before_its_optimizer_step() -> None:
    gate = StepGate()
    assert gate.hold(5) == 0
    gate.decide(5, 0)
    assert passes(gate, 5, 3) == 0
    assert gate.hold(6) == 0
    gate.decide(6, 3)
    assert passes(gate, 6, 3) == 3


def test_a_decision_that_never_comes_is_not_waited_for_for_ever() -> None:
    gate = StepGate(decision_s=0.2)
    assert gate.hold(0) == 0
    started_s = time.monotonic()
    assert passes(gate, 0, 100) == -1
    assert time.monotonic() - started_s < 2  # once, not at each pass


def num_passes(worker: Any, batch: TrainBatch) -> int:
    """Micro-batches of this rank."""
    settings = PlanSettings(learner=worker._config, max_tokens=12, packed=worker.can_pack())
    dealt = shares(batch, plan_step(batch, settings), settings, num_ranks=worker._world_size)
    (mini_batch,) = dealt[worker._rank].mini_batches
    return len(mini_batch)


def give_up_within(worker: Any, number: int, place: Place) -> list[str]:
    """The step is given up at the first layer of its pass `number`, counted from 1; fails if another layer is computed
    before somebody adds "over" to what is returned. Passes are counted over reference and policy."""
    seen: list[str] = []

    def ask() -> None:
        seen.append("asked")
        worker.decide_step(1, worker.hold_step(1))

    def visit(layer: torch.nn.Module, _inputs: Any, output: Any) -> None:
        if "over" in seen:
            return
        assert "asked" not in seen, "a layer after the one at which the step was given up"
        if layer in first:
            seen.append("pass")
        if seen.count("pass") == number and layer in first and place == "in a forward pass":
            ask()
        if seen.count("pass") == number and layer in last and place.startswith("in a backward pass"):
            output = output[0] if isinstance(output, tuple) else output
            output.register_hook(lambda _: ask())

    first, last = [], []
    for model in (worker._reference.model, worker._model):
        layers = [m for m in model.policy.modules() if isinstance(m, GradientCheckpointingLayer)]
        first.append(layers[0])
        last.append(layers[-1])
        for layer in layers:
            layer.register_forward_hook(visit)
    return seen


def given_up_and_resumed(
    rank: int,
    world_size: int,
    addresses: list[RendezvousAddress],
    model_dir: str,
    stage: int,
    place: Place,
) -> Digests:
    """Goes through a case."""
    fields: dict[str, Any] = {"zero_stage": stage, "micro_batch_tokens": 16}
    fields["gradient_checkpointing"] = place == "in a backward pass, recomputed"
    worker = make_worker(rank, world_size, addresses[0], model_dir, **fields)
    train_step(worker, train_batch(0))
    before = weights_of(worker)[1]
    # Each micro-batch is a pass of the reference, then one of the policy: among these, where gradients are half there,
    # and after the last, where they are whole and ranks have added them up.
    num_micro_batches = num_passes(worker, train_batch(1))
    given_up_at = {"between passes": num_micro_batches + 2, "at the end": 2 * num_micro_batches}
    seen: list[str] = []
    if place in given_up_at:
        worker.hold_step(1)
        worker.decide_step(1, given_up_at[place])
    else:
        seen = give_up_within(worker, num_micro_batches + 2, place)
    told = "within its pass" if world_size == 1 else "before its pass"
    with pytest.raises(StepGivenUpError, match=told):
        train_step(worker, train_batch(1))
    seen.append("over")
    worker.score_tokens([[3, 4, 5]])  # nothing of the step is in the way of other passes
    assert any(parameter.grad is not None for parameter in worker._model.parameters()) or stage
    after = weights_of(worker)[1]
    final = Path(model_dir).parent / f"{world_size} {stage} {place}" / checkpoint_name(1)
    worker.save(str(unfinished_path(final)))
    if rank == 0:
        write_manifest(unfinished_path(final))
        publish(unfinished_path(final), final)
    worker.close()

    digests = []
    for address, first in ((addresses[1], 0), (addresses[2], 1)):
        worker = make_worker(rank, world_size, address, model_dir, **fields)
        if first:
            worker.load(str(final))
        for step in range(first, 3):
            train_step(worker, train_batch(step))
        digests.append(weights_of(worker)[1])
        worker.close()
    return before, after, digests[0], digests[1]


def all_cases(rank: int, world_size: int, addresses: list[RendezvousAddress], model_dir: str) -> dict[Case, Digests]:
    """What this rank went through."""
    found: dict[Case, Digests] = {}
    # First what both do: DeepSpeed numbers the modules of a process, and ZeRO-3 compares the numbers of the ranks.
    for i, case in enumerate(TOGETHER + ALONE):
        together, stage, place = case
        three = addresses[3 * i : 3 * i + 3]
        if together == str(world_size):
            digests = given_up_and_resumed(rank, world_size, three, model_dir, int(stage), place)
            found |= {case: digests} if rank == 0 else {}
        elif i % world_size == rank:  # alone, while the other process has another case
            found[case] = given_up_and_resumed(0, 1, three, model_dir, int(stage), place)
    return found


@pytest.fixture(scope="module")
def given_up(tmp_path_factory: pytest.TempPathFactory) -> dict[Case, Digests]:
    """Every case, in one process for each rank."""
    model_dir = save_toy_model(tmp_path_factory.mktemp("gate") / "model")
    by_rank = run_ranks(all_cases, 2, 3 * len(TOGETHER + ALONE), str(model_dir), deadline_s=480.0)
    return {case: digests for found in by_rank for case, digests in found.items()}


@pytest.mark.integration
@pytest.mark.parametrize("case", TOGETHER + ALONE, ids=" ".join)
def test_what_a_step_left_that_was_given_up_is_in_no_weights(given_up: dict[Case, Digests], case: Case) -> None:
    """A rank that is alone gives up between two layers, ranks that have each other between two passes."""
    before, after, wanted, got = given_up[case]
    assert before == after
    assert wanted == got != before
