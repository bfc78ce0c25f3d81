"""RewardWorker: score the completions of a group, each within its deadline. A bad completion is data, not a crash.

    score(group) --+-- completion 0: functions one after the other --> child process, timeout_s
                   +-- completion 1: ...                           --> child process, timeout_s
                   +-- batched function: all completions at once   --> child process, timeout_s * G
                   +-- reward model: all completions at once       --> the callable that was given (an actor)

Several groups may be scored at the same time, each from a thread of its own; together they share the worker's child
processes. A plain class: nothing here knows of actors.
"""

import hashlib
import math
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import replace

from reward.children.child import one_line
from reward.children.pool import CONTROL_DEADLINE_S, ComponentAnswer, ScoringChildren
from reward.config import RewardConfig
from reward.errors import RewardError
from reward.function_loading import load_functions
from reward.functions import ScoreWithModel, reward_input, weighted_sum
from reward.math.extraction import final_answer
from reward.math.normalization import normalize_answer
from reward.types import GroupScores, RewardInput, RewardOutcome, RewardResult
from rollout.types import RolloutGroup

MAX_VOTE_CHARACTERS = 64
"""A longer text votes by its digest: two that differ still differ, and no text travels for a count."""

Answers = list[list[ComponentAnswer]]
"""[functions of a call][completions of a call]"""


def validate_reward_config(config: RewardConfig) -> None:
    """Import the reward functions and check their params, in this process, without starting anything.

    Raises:
        ConfigError: a function that cannot be found, called, or called with its params.
    """
    load_functions(config.functions)


class RewardWorker:
    """Scores groups in child processes of its own.

    `reward_model` scores all completions of a group for the component `config.reward_model`; it is called once for
    each group, in the thread that scores the group, and has to keep a deadline of its own. What it raises makes the
    group's completions `error`. `max_tokens` is the sampling's, for functions that ask for it.
    """

    def __init__(
        self,
        config: RewardConfig,
        name: str,
        reward_model: ScoreWithModel | None = None,
        *,
        max_tokens: int | None = None,
    ) -> None:
        assert (config.reward_model is None) == (reward_model is None), "a reward model needs config and callable both"
        self.name = name
        self._config = config
        self._reward_model = reward_model
        self._max_tokens = max_tokens
        self._components = [function.component for function in config.functions]
        self._weights = {function.component: function.weight for function in config.functions}
        if config.reward_model is not None:
            self._components.append(config.reward_model.name)
            self._weights[config.reward_model.name] = config.reward_model.weight
        self._children = ScoringChildren(config.functions, num_children=config.children_per_worker)
        # One thread for each child: a request that has to wait for a child waits in the executor's queue, where its
        # own deadline does not run yet.
        self._threads = ThreadPoolExecutor(config.children_per_worker, thread_name_prefix=f"{name}-child")
        self._start_lock = threading.Lock()
        self._is_started = False
        self._single: list[int] = []
        self._batched: list[int] = []
        self._lock = threading.Lock()
        self._queued_s = 0.0

    def start(self) -> None:
        """Start the scoring children with the functions imported; `score` does it where it was not done.

        Raises:
            ConfigError: a function cannot be loaded there.
            RewardError: they were not imported in time.
        """
        with self._start_lock:
            if not self._is_started:
                is_batched = self._children.start() if self._config.functions else ()
                self._single = [number for number, batched in enumerate(is_batched) if not batched]
                self._batched = [number for number, batched in enumerate(is_batched) if batched]
                self._is_started = True

    def score(self, group: RolloutGroup) -> GroupScores:
        """Score all completions. Blocks; thread-safe.

        Raises:
            RewardError: the worker is closed, or no child process can be started at all.
        """
        self.start()
        started_s = time.time()
        items = [reward_input(group.prompt, completion, self._max_tokens) for completion in group.completions]
        singles = [self._submit(self._single, [item]) for item in items] if self._single else []
        batches = [self._submit([number], items) for number in self._batched]
        # While the children work.
        model_answers = self._ask_model(items) if self._reward_model is not None else []
        answers: list[dict[str, ComponentAnswer]] = [{} for _ in items]
        durations_s = [0.0] * len(items)
        for index, future in enumerate(singles):
            columns, duration_s = self._result(future)
            durations_s[index] += duration_s
            for number, column in zip(self._single, columns, strict=True):
                answers[index][self._components[number]] = column[0]
        for number, future in zip(self._batched, batches, strict=True):
            (column,), duration_s = self._result(future)
            for index, answer in enumerate(column):
                answers[index][self._components[number]] = answer
                durations_s[index] += duration_s / len(items)
        for index, answer in enumerate(model_answers):
            answers[index][self._components[-1]] = answer
        rewards = tuple(
            _with_answer(self._combine(by_component, duration_s), completion.text)
            for by_component, duration_s, completion in zip(answers, durations_s, group.completions, strict=True)
        )
        return GroupScores(rewards=rewards, worker=self.name, started_s=started_s, finished_s=time.time())

    def close(self) -> None:
        """Kill all child processes; groups that are being scored end with RewardError or `error`. Idempotent."""
        # The children first: threads that wait for one wake up, and can be joined.
        self._children.close()
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _submit(self, numbers: Sequence[int], items: Sequence[RewardInput]) -> "Future[tuple[Answers, float]]":
        """A request on its way. Its deadline is `timeout_s` for each completion in it, however many functions."""
        timeout_s = self._config.timeout_s * len(items)
        with self._lock:
            self._queued_s += timeout_s

        def run() -> tuple[Answers, float]:
            started_s = time.monotonic()
            try:
                return self._children.call(numbers, items, timeout_s), time.monotonic() - started_s
            finally:
                with self._lock:
                    self._queued_s -= timeout_s

        try:
            return self._threads.submit(run)
        except RuntimeError as error:  # the executor's way to say that it was shut down
            raise RewardError(f"{self.name} is closed") from error

    def _result(self, future: "Future[tuple[Answers, float]]") -> tuple[Answers, float]:
        # Everything in front of it may take its full time, and each kill a template's; one that takes longer is a
        # fault of ours, and the error names it instead of a hang.
        with self._lock:
            bound_s = self._queued_s + self._config.timeout_s + 4 * CONTROL_DEADLINE_S
        try:
            return future.result(bound_s)
        except CancelledError as error:
            raise RewardError(f"{self.name} was closed while it was scoring") from error
        except TimeoutError as error:
            raise RewardError(
                f"{self.name}: no answer within {bound_s:.0f} s, although each request has a deadline"
            ) from (error)

    def _ask_model(self, items: Sequence[RewardInput]) -> list[ComponentAnswer]:
        assert self._reward_model is not None
        name = self._components[-1]
        try:
            values = [float(value) for value in self._reward_model(items)]
        except Exception as error:  # noqa: BLE001 - boundary: an actor call, which fails in its library's own ways
            detail = one_line(f"{name} raised {type(error).__name__}: {error}")
            return [ComponentAnswer(outcome=RewardOutcome.ERROR, value=None, detail=detail)] * len(items)
        if len(values) != len(items):
            detail = f"{name} returned {len(values)} values for {len(items)} completions"
            return [ComponentAnswer(outcome=RewardOutcome.INVALID, value=None, detail=detail)] * len(items)
        return [
            ComponentAnswer(outcome=RewardOutcome.OK, value=value)
            if math.isfinite(value)
            else ComponentAnswer(outcome=RewardOutcome.INVALID, value=None, detail=f"{name} returned {value}")
            for value in values
        ]

    def _combine(self, answers: Mapping[str, ComponentAnswer], duration_s: float) -> RewardResult:
        """One result: `ok` when every component is; else the first that is not, in the order of the configuration."""
        values = {name: answers[name].value for name in self._components}
        components = {name: value for name, value in values.items() if value is not None}
        for name in self._components:
            if answers[name].outcome is not RewardOutcome.OK:
                return RewardResult(
                    outcome=answers[name].outcome,
                    reward=None,
                    components=components,
                    detail=answers[name].detail,
                    duration_s=duration_s,
                )
        reward = weighted_sum(components, self._weights)
        if not math.isfinite(reward):
            detail = f"the weighted sum of the components is {reward}"
            return RewardResult(
                outcome=RewardOutcome.INVALID, reward=None, components=components, detail=detail, duration_s=duration_s
            )
        return RewardResult(
            outcome=RewardOutcome.OK,
            reward=reward,
            components=components,
            correct=components[self._config.accuracy_component] >= self._config.accuracy_threshold,
            detail=one_line("; ".join(answers[name].detail for name in self._components if answers[name].detail)),
            duration_s=duration_s,
        )


def _with_answer(result: RewardResult, text: str) -> RewardResult:
    answer = final_answer(text)
    if answer is not None:
        return replace(result, answer=answer, vote=normalize_answer(answer))
    words = text.strip()
    if len(words) > MAX_VOTE_CHARACTERS:
        words = hashlib.sha256(words.encode("utf-8", "surrogatepass")).hexdigest()
    return replace(result, vote=words or None)
