"""Several groups at one reward model: what is computed together, in which order, and what failing does."""

import threading
from collections.abc import Sequence
from typing import Any

import pytest

from reward.config import RewardModelConfig
from reward.errors import RewardError
from reward.models import worker as module
from reward.models.worker import RewardModelWorker
from tests.reward.samples import item


class Model:
    """The length of a text is its score. Waits in front of each batch for as long as `gate` is closed."""

    def __init__(self, _config: object) -> None:
        self.batches: list[list[str]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()

    def text(self, _question: str, completion: str) -> str:
        return completion

    def score_texts(self, texts: Sequence[str]) -> list[float]:
        self.entered.set()
        assert self.gate.wait(5)
        self.batches.append(list(texts))
        if "bad" in texts:
            raise ValueError("no such token")
        return [float(len(text)) for text in texts]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(module, "RewardModelScorer", Model)
    workers: list[RewardModelWorker] = []

    def make(**kwargs: Any) -> tuple[RewardModelWorker, Any]:
        workers.append(RewardModelWorker(RewardModelConfig(path="m", batch_size=4), **kwargs))
        return workers[-1], workers[-1]._model

    yield make
    for worker in workers:
        worker._model.gate.set()  # type: ignore[attr-defined]
        worker.close()


class Group:
    """A group that is being scored in a thread of its own."""

    def __init__(self, worker: RewardModelWorker, *completions: str) -> None:
        self.result: list[float] | Exception | None = None
        self._thread = threading.Thread(target=self._run, args=(worker, [item(c) for c in completions]))
        self._thread.start()

    def _run(self, worker: RewardModelWorker, items: list[Any]) -> None:
        try:
            self.result = worker.score(items)
        except (RewardError, ValueError) as error:
            self.result = error

    def ended(self) -> list[float] | Exception | None:
        self._thread.join(5)
        return self.result


def held(worker: RewardModelWorker, model: Model, num_waiting: int, *groups: tuple[str, ...]) -> list[Group]:
    """The first group is being computed while the others come to wait."""
    model.gate.clear()
    model.entered.clear()
    started = [Group(worker, *groups[0])]
    assert model.entered.wait(5)
    started.extend(Group(worker, *group) for group in groups[1:])
    while len(worker._waiting) < num_waiting:
        pass
    return started


def test_groups_that_wait_are_computed_together(made: Any) -> None:
    worker, model = made()
    groups = held(worker, model, 4, ("first",), ("a", "bb"), ("ccc", "dddd"))
    model.gate.set()
    assert [group.ended() for group in groups] == [[5.0], [1.0, 2.0], [3.0, 4.0]]
    assert [sorted(batch) for batch in model.batches] == [["first"], ["a", "bb", "ccc", "dddd"]]
    assert worker.num_batches() == 2


def test_a_batch_has_no_more_than_its_size_and_the_oldest_is_in_it(made: Any) -> None:
    worker, model = made()
    groups = held(worker, model, 12, ("first",), ("x" * 50,), *[("y" * n,) for n in range(1, 12)])
    model.gate.set()
    for group in groups:
        group.ended()
    assert [len(batch) for batch in model.batches] == [1, 4, 4, 4]
    assert "x" * 50 in model.batches[1]


def test_a_deterministic_run_computes_each_group_alone_whoever_else_waits(made: Any) -> None:
    worker, model = made(across_groups=False)
    groups = held(worker, model, 9, ("first",), ("dddd", "a", "ccc", "bb", "eeeee"), ("zz", "z", "zzz", "zzzz"))
    model.gate.set()
    assert groups[1].ended() == [4.0, 1.0, 3.0, 2.0, 5.0]
    groups[2].ended()
    alone = [["a", "bb", "ccc", "dddd"], ["eeeee"], ["z", "zz", "zzz", "zzzz"]]
    assert sorted(model.batches[1:]) == sorted(alone)


def test_what_the_model_raises_goes_to_those_that_it_computed_and_it_goes_on(made: Any) -> None:
    worker, model = made(across_groups=False)
    groups = held(worker, model, 2, ("first",), ("bad",), ("fine",))
    model.gate.set()
    first, bad, fine = [group.ended() for group in groups]
    assert (first, fine) == ([5.0], [4.0])
    assert isinstance(bad, ValueError)
    assert worker.score([]) == []


def test_a_probe_waits_for_the_end_of_a_batch_and_for_nothing_while_idle(made: Any) -> None:
    worker, model = made()
    worker.probe()
    (group,) = held(worker, model, 0, ("first",))
    probe = threading.Thread(target=worker.probe)
    probe.start()
    probe.join(0.05)
    assert probe.is_alive()
    model.gate.set()
    probe.join(5)
    assert not probe.is_alive()
    group.ended()


def test_one_that_is_closed_fails_what_waits(made: Any) -> None:
    worker, model = made()
    groups = held(worker, model, 1, ("first",), ("second",))
    closing = threading.Thread(target=worker.close)
    closing.start()
    while not worker._is_closed:
        pass
    model.gate.set()
    closing.join(5)
    assert groups[0].ended() == [5.0]
    assert isinstance(groups[1].ended(), RewardError)
    with pytest.raises(RewardError, match="is closed"):
        worker.score([item("3")])
