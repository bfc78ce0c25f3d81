"""How a reward worker gets its scores when reward models are lost, hang, and come back under another name."""

import pickle
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from cluster.fleet import reward_models
from cluster.fleet.reward_models import ModelLostError, RewardModels
from reward.errors import RewardError
from reward.types import RewardInput
from tests.reward.samples import item

ITEMS = [item("4"), item("5")]


class Models:
    """Stands for the actors: name -> what it does when it is asked, and how many batches it says it has done."""

    def __init__(self, **models: Callable[[], list[float] | None]) -> None:
        self.models = models
        self.calls: Counter[str] = Counter()
        self.done: Counter[str] = Counter()
        self.on_find: Callable[[], None] = lambda: None

    def find(self) -> Mapping[str, Any]:
        self.on_find()
        return {name: name for name in self.models}

    def start(self, handle: str, items: Sequence[RewardInput]) -> str:
        assert list(items) == ITEMS
        self.calls[handle] += 1
        return handle

    def answer(self, call: str, deadline_s: float) -> list[float] | None:
        assert deadline_s == 50.0
        return self.models[call]()

    def num_batches(self, handle: str) -> int:
        return self.done[handle]


def scores() -> list[float]:
    return [1.0, 2.0]


def lost() -> list[float]:
    raise ModelLostError("its process is gone")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reward_models, "RETRY_S", 0.001)


def asking(models: Models, patience_s: float = 5.0) -> RewardModels:
    return RewardModels("f.", deadline_s=50.0, patience_s=patience_s, finds=models)


def test_another_one_is_asked_when_one_is_lost() -> None:
    models = Models(a=lost, b=scores)
    ask = asking(models)
    assert [ask(ITEMS), ask(ITEMS)] == [scores(), scores()]
    assert models.calls == {"a": 1, "b": 2}


def test_one_that_was_restarted_is_found_under_its_new_name() -> None:
    models = Models(a1=lost)
    looks = Counter[str]()

    def restarted() -> None:
        looks["find"] += 1
        if looks["find"] == 4:
            models.models = {"a2": scores}

    models.on_find = restarted
    ask = asking(models)
    assert [ask(ITEMS), ask(ITEMS)] == [scores(), scores()]
    assert models.calls["a2"] == 2
    assert looks["find"] == 4, "it is not looked up again while all is well"


def test_a_queue_is_waited_for_as_long_as_the_model_gets_on_with_it() -> None:
    waits = Counter[str]()

    def late() -> list[float] | None:
        waits["a"] += 1
        models.done["a"] += 1
        return scores() if waits["a"] == 40 else None  # 39 deadlines have passed

    models = Models(a=late)
    assert asking(models)(ITEMS) == scores()
    assert models.calls["a"] == 1


def test_one_that_does_nothing_for_its_deadline_is_left_for_another() -> None:
    models = Models(a=lambda: None, b=scores)
    assert asking(models)(ITEMS) == scores()
    assert models.calls == {"a": 1, "b": 1}


def test_who_finds_none_for_long_enough_says_what_the_last_one_was() -> None:
    with pytest.raises(RewardError, match=r"for 0\.05 s; the last one: a: its process is gone"):
        asking(Models(a=lost), patience_s=0.05)(ITEMS)
    with pytest.raises(RewardError, match="there is none"):
        asking(Models(), patience_s=0.05)(ITEMS)


def test_what_a_model_raises_is_not_asked_of_another() -> None:
    def broken() -> list[float]:
        raise ValueError("no such token")

    models = Models(a=broken, b=scores)
    with pytest.raises(ValueError, match="no such token"):
        asking(models)(ITEMS)
    assert models.calls == {"a": 1}


def test_calls_of_several_threads_are_spread_over_the_models() -> None:
    gate = threading.Event()

    def held() -> list[float]:
        assert gate.wait(5)
        return scores()

    models = Models(a=held, b=held, c=held)
    ask = asking(models)
    threads = [threading.Thread(target=ask, args=(ITEMS,)) for _ in range(6)]
    for thread in threads:
        thread.start()
    while models.calls.total() < 6:
        pass
    gate.set()
    for thread in threads:
        thread.join(5)
    assert models.calls == {"a": 2, "b": 2, "c": 2}


def test_it_travels_to_another_process() -> None:
    assert pickle.loads(pickle.dumps(RewardModels("f.", deadline_s=1.0, patience_s=1.0))) is not None
