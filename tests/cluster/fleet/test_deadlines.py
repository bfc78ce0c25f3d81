import asyncio
import pickle
import time
from collections.abc import Callable
from typing import Any

import pytest
import ray.exceptions

import cluster.errors
import rollout.errors
from cluster.errors import ActorFailedError, NeverWorkedError, RestartsExhaustedError, StageTimeoutError, StoppedError
from cluster.fleet.deadlines import finish, finish_all, first_line
from rollout.errors import EngineError, ShoalError

WHERE = {"stage": "sample", "actor": "sampler-0", "item": "group 7"}


async def raising(error: BaseException) -> None:
    raise error


def as_ray_raises(cause: Exception) -> ray.exceptions.RayError:
    task_error: Callable[..., Any] = ray.exceptions.RayTaskError  # its constructor has no types
    error = task_error("f", f"Traceback\n{type(cause).__name__}: {cause}", cause, "actor", 1, "::1")
    raised: ray.exceptions.RayError = error.as_instanceof_cause()
    return raised


def test_a_result_in_time_is_returned() -> None:
    async def answer() -> int:
        return 3

    assert asyncio.run(finish(answer(), deadline_s=1, **WHERE)) == 3


def test_a_wait_past_its_deadline_names_stage_actor_and_item() -> None:
    started = time.monotonic()
    with pytest.raises(StageTimeoutError) as caught:
        asyncio.run(finish(asyncio.sleep(30), deadline_s=0.02, **WHERE))
    assert time.monotonic() - started < 5
    assert str(caught.value).startswith("sample: sampler-0 did not finish group 7 within 0.02 s")
    assert (caught.value.stage, caught.value.actor, caught.value.item) == ("sample", "sampler-0", "group 7")


@pytest.mark.parametrize("remote", [False, True])
def test_an_error_of_shoal_passes_through_as_it_was(remote: bool) -> None:
    error = EngineError("sampler-0: the engine failed")
    with pytest.raises(EngineError) as caught:
        asyncio.run(finish(raising(as_ray_raises(error) if remote else error), deadline_s=1, **WHERE))
    assert caught.value is error


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (as_ray_raises(ZeroDivisionError("division by zero")), "ZeroDivisionError: division by zero"),
        (as_ray_raises(TimeoutError("the socket was slow")), "TimeoutError: the socket was slow"),
        (ray.exceptions.GetTimeoutError("get took too long"), "GetTimeoutError: get took too long"),
        (ray.exceptions.RayActorError(error_msg="head\n\nthe actor is dead"), "RayActorError: the actor is dead"),
    ],
)
def test_any_other_failure_names_the_actor_and_its_cause_in_one_line(error: Exception, cause: str) -> None:
    with pytest.raises(ActorFailedError) as caught:
        asyncio.run(finish(raising(error), deadline_s=60, **WHERE))
    assert str(caught.value) == f"sample: sampler-0 failed on group 7: {cause}"


def test_a_mistake_of_ours_is_not_dressed_up() -> None:
    with pytest.raises(KeyError):
        asyncio.run(finish(raising(KeyError("x")), deadline_s=1, **WHERE))


def test_the_first_actor_to_fail_decides_and_the_others_are_not_waited_for() -> None:
    async def main() -> None:
        slow = asyncio.ensure_future(asyncio.sleep(30))
        works = [slow, raising(as_ray_raises(ValueError("bad")))]
        with pytest.raises(ActorFailedError, match="train: learner-1 failed on step 3: ValueError: bad"):
            await finish_all(works, deadline_s=20, stage="train", actors=["learner-0", "learner-1"], item="step 3")

    started = time.monotonic()
    asyncio.run(main())
    assert time.monotonic() - started < 5


def test_results_come_in_the_order_of_the_actors() -> None:
    async def later(value: int, seconds: float) -> int:
        await asyncio.sleep(seconds)
        return value

    works = [later(0, 0.02), later(1, 0.0)]
    got = asyncio.run(finish_all(works, deadline_s=5, stage="s", actors=["a", "b"], item="i"))
    assert got == [0, 1]


def test_first_line_is_the_last_that_says_something() -> None:
    assert first_line("a\n  b \n\n") == "b"
    assert first_line("x" * 600) == "x" * 500
    assert first_line(KeyError()) == "KeyError"


SPECIAL: dict[type[ShoalError], tuple[object, ...]] = {
    StageTimeoutError: ("sync", "sampler-0", "chunk 3", 1.5),
    ActorFailedError: ("sync", "sampler-0", "chunk 3", "it died"),
    NeverWorkedError: ("sampler-0", "no such thing"),
    RestartsExhaustedError: ("sampler-0", 10, "it died"),
    StoppedError: ("stopped by SIGTERM", 143),
}
ERRORS = sorted(
    {
        error
        for module in (cluster.errors, rollout.errors)
        for error in vars(module).values()
        if isinstance(error, type) and issubclass(error, ShoalError)
    },
    key=lambda error: error.__name__,
)


@pytest.mark.parametrize("error_type", ERRORS, ids=lambda error: error.__name__)
def test_every_error_survives_pickling(error_type: type[ShoalError]) -> None:
    error = error_type(*SPECIAL.get(error_type, ("what happened",)))
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is error_type
    assert (str(again), again.args, vars(again)) == (str(error), error.args, vars(error))
    assert str(again)


def test_all_errors_were_found() -> None:
    assert len(ERRORS) >= 15
    assert set(SPECIAL) <= set(ERRORS)
