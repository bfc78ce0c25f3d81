"""RewardWorker: score the completions of a group, each within its deadline. A bad completion is data, not a crash.

    score(group) --+-- completion 0: functions one after the other --> child process, timeout_s
                   +-- completion 1: ...                           --> child process, timeout_s
                   +-- coroutine function: all completions at once --> child process, timeout_s each
                   +-- batched function: all completions at once   --> child process, timeout_s * G
                   +-- reward model: all completions at once       --> the callable that was given (an actor)
                   +-- judge, http: all completions at once        --> a server, asked by a thread of the worker
                   +-- steps of each completion, in training       --> child process, timeout_s

Several groups may be scored at the same time, each from a thread of its own; together they share the worker's child
processes. A plain class: nothing here knows of actors.
"""

import hashlib
import math
import threading
import time
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import replace

from reward.children.pool import ScoringChildren, longest_together_s
from reward.components import RowComponents, components_of, why_unscored
from reward.config import RewardConfig, RewardFunctionConfig
from reward.errors import RewardError
from reward.function_loading import is_shipped, load_functions
from reward.functions import CallForm, ScoreWithModel, reward_input, weighted_sum
from reward.judging.asked import AskedFunctions, AskingSite
from reward.judging.asking import Judged
from reward.rules.answers import Answer, answer_of
from reward.steps import LoadTokenBytes, Step, TokenBytes, split_steps, steps_with_rewards
from reward.types import (
    ComponentAnswer,
    GroupScores,
    RewardInput,
    RewardOutcome,
    RewardResult,
    ServerCost,
    StepReward,
    one_line,
)
from rollout.children.owned_template import CONTROL_DEADLINE_S
from rollout.errors import ConfigError
from rollout.types import RolloutGroup

ASKED_MARGIN_S = 30.0
"""Beyond the deadline of what is asked of servers: for notes on a slow disk."""
MAX_VOTE_CHARACTERS = 64
"""A longer text votes by its digest: two that differ still differ, and no text travels for a count."""

Answers = list[list[tuple[ComponentAnswer, float]]]
"""[functions of a call][completions of a call]: what was said, and the seconds that it took"""


Said = dict[int, ComponentAnswer]
"""Number of a component -> what it said of one completion."""


def validate_reward_config(config: RewardConfig) -> None:
    """Import the reward functions and check their params. Modules of the user are imported in a process of their own,
    which ends with this: they may start threads, take memory, or hang.

    Raises:
        ConfigError: a function that cannot be found, called, called with its params, or imported in time.
    """
    load_functions([function for function in config.called if is_shipped(function.function)])
    foreign = [function for function in config.called if not is_shipped(function.function)]
    if foreign:
        children = ScoringChildren(foreign, num_children=0, start_deadline_s=config.import_timeout_s)
        try:
            children.start()
        except RewardError as error:
            raise ConfigError(str(error)) from error
        finally:
            children.close()


class RewardWorker:
    """Scores groups in child processes of its own.

    `reward_model` scores all completions of a group for the component `config.reward_model`; it is called once for
    each group, in the thread that scores the group, and has to keep a deadline of its own. What it raises makes the
    group's completions `error`. `max_tokens` is the sampling's, for functions that ask for it. `load_token_bytes` is
    called once, where steps are scored. `asking` is for components that ask a server: what they are told of the run.
    """

    def __init__(
        self,
        config: RewardConfig,
        name: str,
        reward_model: ScoreWithModel | None = None,
        *,
        max_tokens: int | None = None,
        load_token_bytes: LoadTokenBytes | None = None,
        asking: AskingSite | None = None,
    ) -> None:
        assert (config.reward_model is None) == (reward_model is None), "a reward model needs config and callable both"
        assert config.steps is None or load_token_bytes is not None, "steps end at tokens"
        self.name = name
        self._config = config
        self._reward_model = reward_model
        self._max_tokens = max_tokens
        self._components = [component.component for component in config.components]
        self._weights = {component.component: component.weight for component in config.components}
        self._load_token_bytes = load_token_bytes
        self._token_bytes: TokenBytes = ()
        self._asking = asking or AskingSite()
        self._asked_configs = config.asked
        self._asked: AskedFunctions | None = None
        self._children = ScoringChildren(
            config.called, num_children=config.children_per_worker, start_deadline_s=config.import_timeout_s
        )
        # One thread for each child: a request that has to wait for a child waits in the executor's queue, where its
        # own deadline does not run yet.
        self._threads = ThreadPoolExecutor(config.children_per_worker, thread_name_prefix=f"{name}-child")
        self._start_lock = threading.Lock()
        self._is_started = False
        self._forms: tuple[CallForm, ...] = ()
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
                self._forms = self._children.start() if self._config.called else ()
                if self._asked_configs:
                    self._asked = AskedFunctions(self._asked_configs, self.name, self._asking)
                if self._config.steps is not None:
                    assert self._load_token_bytes is not None
                    self._token_bytes = self._load_token_bytes()
                self._is_started = True

    def score(self, group: RolloutGroup, *, with_steps: bool = True) -> GroupScores:
        """Score all completions. Blocks; thread-safe. Steps are what a policy is trained on: without `with_steps`, as
        in an evaluation, they are not scored, and none of their faults changes what is right.

        Raises:
            RewardError: the worker is closed, or no child process can be started at all.
        """
        self.start()
        started_s = time.time()
        items = [reward_input(group.prompt, completion, self._max_tokens) for completion in group.completions]
        why = why_unscored(self._config, group.prompt)
        of_row = components_of(self._config, group.prompt.task, group.prompt.row)
        judge = next((f for f in self._config.functions if f.component == of_row.accuracy), None)
        costs: list[ServerCost] = []
        if why is None:
            results = self._results(of_row, items, costs, with_steps=with_steps)
        else:  # checked before the run; a prompt from elsewhere is an outcome, like anything that a row does wrong
            detail = one_line(f"the row cannot be scored: {why}")
            results = [RewardResult(outcome=RewardOutcome.ERROR, reward=None, detail=detail)] * len(items)
        rewards = tuple(with_answer(result, item, judge) for result, item in zip(results, items, strict=True))
        cost = sum(costs, ServerCost()) if self._asked is not None else None
        return GroupScores(rewards=rewards, worker=self.name, started_s=started_s, finished_s=time.time(), cost=cost)

    def _results(
        self, of_row: RowComponents, items: Sequence[RewardInput], costs: list[ServerCost], *, with_steps: bool
    ) -> list[RewardResult]:
        """`costs` is added to."""
        if self._config.steps is None or not with_steps:
            return [self._combine(of_row, *answer) for answer in self._ask(of_row, items, costs)]
        steps = [split_steps(item.completion, self._config.steps.splitter) for item in items]
        items = [replace(item, steps=tuple(step.text for step in of)) for item, of in zip(items, steps, strict=True)]
        asked = self._submit_steps(items)
        results = [self._combine(of_row, *answer) for answer in self._ask(of_row, items, costs)]
        answers = [answer for future in asked for answer in self._result(future)[0]]
        return [
            self._with_steps(result, item, of, *answer)
            for result, item, of, answer in zip(results, items, steps, answers, strict=True)
        ]

    def _submit_steps(self, items: Sequence[RewardInput]) -> "list[Future[Answers]]":
        number = len(self._config.functions)
        if self._forms[number] is CallForm.SINGLE:
            return [self._submit([number], [item]) for item in items]
        return [self._submit([number], items)]

    def _with_steps(  # one argument for each thing that is known of a completion
        self, result: RewardResult, item: RewardInput, steps: Sequence[Step], answer: ComponentAnswer, duration_s: float
    ) -> RewardResult:
        """`result` with the rewards of its steps; not scored where there are none for them."""
        duration_s += result.duration_s
        if result.outcome is not RewardOutcome.OK:
            return replace(result, duration_s=duration_s)
        outcome, detail = answer.outcome, answer.detail
        rewards: tuple[StepReward, ...] = ()
        if outcome is RewardOutcome.OK:
            try:
                # As many as there are steps: `zip` is strict, and a child is not believed.
                rewards = steps_with_rewards(steps, answer.steps, item.completion, item.token_ids, self._token_bytes)
            except ValueError as error:
                outcome, detail = RewardOutcome.ERROR, one_line(f"reward.steps: {error}")
        if outcome is RewardOutcome.OK:
            return replace(result, steps=rewards, duration_s=duration_s)
        return replace(result, outcome=outcome, reward=None, correct=None, detail=detail, duration_s=duration_s)

    def _ask(
        self, of_row: RowComponents, items: Sequence[RewardInput], costs: list[ServerCost]
    ) -> list[tuple[dict[int, ComponentAnswer], float]]:
        """For each item, what each of the row's components says of it, and the seconds that it took."""
        forms = {number: self._forms[number] for number in of_row.numbers if number < len(self._config.functions)}
        asked = {number: self._submit_asked(number, items) for number, form in forms.items() if form is CallForm.ASKED}
        single = [number for number, form in forms.items() if form is CallForm.SINGLE]
        singles = [self._submit(single, [item]) for item in items] if single else []
        whole = {number: self._submit([number], items) for number in forms if number not in {*single, *asked}}
        answers: list[Said] = [{} for _ in items]
        durations_s = [0.0] * len(items)
        model = len(self._config.functions)
        if model in of_row.numbers:  # while the children work
            for index, answer in enumerate(self._ask_model(items)):
                answers[index][model] = answer
        for index, future in enumerate(singles):
            for number, column in zip(single, self._result(future), strict=True):
                ((answers[index][number], duration_s),) = column
                durations_s[index] += duration_s
        for number, future in whole.items():
            (column,) = self._result(future)
            for index, (answer, duration_s) in enumerate(column):
                answers[index][number] = answer
                durations_s[index] += duration_s
        for number, (started_s, answer_of_group) in asked.items():
            judged = self._judged(number, answer_of_group)
            costs.append(judged.cost)
            for index, answer in enumerate(judged.answers):
                answers[index][number] = answer
                durations_s[index] += (time.monotonic() - started_s) / len(items)
        return list(zip(answers, durations_s, strict=True))

    def _submit_asked(self, number: int, items: Sequence[RewardInput]) -> "tuple[float, Future[Judged]]":
        """When it was asked, and what is answered."""
        assert self._asked is not None
        return time.monotonic(), self._asked.submit(self._components[number], items)

    def _judged(self, number: int, future: "Future[Judged]") -> Judged:
        asked = self._asked_configs[self._components[number]]
        try:
            return future.result(asked.limits.deadline_s + ASKED_MARGIN_S)
        except CancelledError as error:
            raise RewardError(f"{self.name} was closed while it was scoring") from error
        except TimeoutError as error:
            name = self._components[number]
            raise RewardError(f"{self.name}: {name} gave no answer, although its requests have a deadline") from error

    def close(self) -> None:
        """Kill all child processes; groups that are being scored end with RewardError or `error`. Idempotent."""
        # The children first: threads that wait for one wake up, and can be joined.
        self._children.close()
        if self._asked is not None:
            self._asked.close()
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _submit(self, numbers: Sequence[int], items: Sequence[RewardInput]) -> "Future[Answers]":
        """A request on its way. Its deadline is `timeout_s` for each completion in it, however many functions, and what
        some of them have besides."""
        is_together = self._forms[numbers[0]] is CallForm.CONCURRENT
        timeout_s = self._config.timeout_s * len(items)
        own_s = len(items) * sum(self._config.called[number].own_time_s for number in numbers)
        longest_s = longest_together_s(self._config.timeout_s, len(items)) if is_together else timeout_s + own_s
        with self._lock:
            self._queued_s += longest_s

        def run() -> Answers:
            started_s = time.monotonic()
            try:
                if is_together:
                    return [self._children.call_together(numbers[0], items, self._config.timeout_s)]
                columns = self._children.call(numbers, items, timeout_s)
                share_s = (time.monotonic() - started_s) / len(items) / len(numbers)
                return [[(answer, share_s) for answer in column] for column in columns]
            finally:
                with self._lock:
                    self._queued_s -= longest_s

        try:
            return self._threads.submit(run)
        except RuntimeError as error:  # the executor's way to say that it was shut down
            raise RewardError(f"{self.name} is closed") from error

    def _result(self, future: "Future[Answers]") -> Answers:
        # Everything in front of it may take its full time, and each kill a template's; one that takes longer is a
        # fault of ours, and the error names it instead of a hang.
        with self._lock:
            bound_s = self._queued_s + self._config.longest_s + 4 * CONTROL_DEADLINE_S
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

    def _combine(self, of_row: RowComponents, answers: Said, duration_s: float) -> RewardResult:
        """One result: `ok` when every component is; else the first that is not, in the order of the configuration."""
        named = {self._components[number]: answers[number] for number in of_row.numbers}
        components = {name: answer.value for name, answer in named.items() if answer.value is not None}
        verdicts = {name: answer.verdict for name, answer in named.items() if answer.verdict is not None}
        for answer in named.values():
            if answer.outcome is not RewardOutcome.OK:
                return RewardResult(
                    outcome=answer.outcome,
                    reward=None,
                    components=components,
                    detail=answer.detail,
                    duration_s=duration_s,
                    verdicts=verdicts,
                )
        reward = weighted_sum(components, {name: self._weights[name] for name in named})
        if not math.isfinite(reward):
            detail = f"the weighted sum of the components is {reward}"
            return RewardResult(
                outcome=RewardOutcome.INVALID,
                reward=None,
                components=components,
                detail=detail,
                duration_s=duration_s,
                verdicts=verdicts,
            )
        assert of_row.accuracy is not None
        return RewardResult(
            outcome=RewardOutcome.OK,
            reward=reward,
            components=components,
            correct=components[of_row.accuracy] >= self._config.accuracy_threshold,
            detail=one_line("; ".join(answer.detail for answer in named.values() if answer.detail)),
            duration_s=duration_s,
            verdicts=verdicts,
        )


def with_answer(result: RewardResult, item: RewardInput, judge: RewardFunctionConfig | None) -> RewardResult:
    """`result` with what the completion stands for, by the function that decides whether it is right."""
    try:
        answer = answer_of(judge, item)
    except Exception:  # noqa: BLE001 - boundary: what the record shows of any text must not cost the group
        answer = Answer(text=None, vote=None)
    vote = item.completion.strip() if answer.vote is None else answer.vote
    if len(vote) > MAX_VOTE_CHARACTERS:
        vote = hashlib.sha256(vote.encode("utf-8", "surrogatepass")).hexdigest()
    return replace(result, answer=answer.text, vote=vote or None)
