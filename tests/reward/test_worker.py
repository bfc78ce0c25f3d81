"""RewardWorker with real child processes: outcomes, deadlines, isolation, and nothing left behind."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from reward.config import RewardConfig, RewardFunctionConfig, RewardModelConfig
from reward.errors import RewardError
from reward.functions import ScoreWithModel
from reward.types import RewardInput, RewardOutcome, RewardResult
from reward.worker import RewardWorker, validate_reward_config
from rollout.errors import ConfigError
from tests.reward.samples import group, gsm8k_file

pytestmark = pytest.mark.integration

MODULE = "tests.reward.misbehaving"
OK, TIMEOUT, ERROR, INVALID = RewardOutcome.OK, RewardOutcome.TIMEOUT, RewardOutcome.ERROR, RewardOutcome.INVALID
Make = Callable[..., RewardWorker]


@pytest.fixture
def make() -> Iterator[Make]:
    """Makes workers, and closes them after the test."""
    workers: list[RewardWorker] = []

    def made(
        *functions: str | RewardFunctionConfig, model: ScoreWithModel | None = None, **fields: object
    ) -> RewardWorker:
        configs = tuple(
            RewardFunctionConfig(function=f"{MODULE}:{name}") if isinstance(name, str) else name for name in functions
        )
        config = RewardConfig.model_validate({"functions": configs, **fields})
        workers.append(RewardWorker(config, "reward-0", model))
        return workers[-1]

    yield made
    for worker in workers:
        worker.close()


def score(worker: RewardWorker, *texts: str) -> tuple[RewardResult, ...]:
    return worker.score(group(list(texts))).rewards


def test_each_misdeed_has_its_outcome_and_the_others_are_scored(make: Make) -> None:
    worker = make("length_of_text", "misbehave", timeout_s=0.5)
    worker.start()
    expected = {
        "fine": OK, "busy": TIMEOUT, "sleep": TIMEOUT, "gil": TIMEOUT, "backtrack": TIMEOUT, "pow": TIMEOUT,
        "exit": ERROR, "sys.exit": ERROR, "segfault": ERROR, "raise": ERROR, "none": INVALID, "nan": INVALID,
        "inf": INVALID, "str": INVALID, "list": INVALID, "good": OK,
    }  # fmt: skip
    started_s = time.monotonic()
    results = dict(zip(expected, score(worker, *expected), strict=True))
    assert {text: result.outcome for text, result in results.items()} == expected
    # Five deadlines of 0.5 s on two children are three rounds; each kill is allowed 0.5 s more.
    assert time.monotonic() - started_s < 3 * (0.5 + 0.5)
    assert all(0.5 <= results[text].duration_s < 1.0 for text in expected if expected[text] is TIMEOUT)
    for text, result in results.items():
        # What answered before the misdeed is recorded; there is a reward for `ok` only.
        assert result.components["length_of_text"] == len(text)
        assert result.reward == (len(text) + 1.0 if result.outcome is OK else None)
        assert (result.detail == "") == (result.outcome is OK)
        assert "\n" not in result.detail
        assert len(result.detail) <= 300
    assert results["busy"].detail == "misbehave did not answer within 0.5 s"
    assert "exit code 3" in results["exit"].detail
    assert "killed by signal 11" in results["segfault"].detail
    assert results["raise"].detail.startswith("misbehave raised ValueError: two lines xxx")
    assert results["sys.exit"].detail == "misbehave raised SystemExit: 4"
    assert results["none"].detail == "misbehave returned None instead of a number"


def test_reward_is_the_weighted_sum_and_correct_is_the_accuracy(make: Make) -> None:
    worker = make(
        RewardFunctionConfig(function="math"),
        RewardFunctionConfig(function=f"{MODULE}:length_of_text", name="length", weight=0.125),
        RewardFunctionConfig(function="format", weight=0.0),
    )
    right, wrong = score(worker, "#### 1", "#### 2")
    # 1 * 1.0 + 0.125 * 6 + 0 * 0.0 = 1.75, and without the accuracy 0.75.
    assert (right.reward, right.correct) == (1.75, True)
    assert dict(right.components) == {"math": 1.0, "length": 6.0, "format": 0.0}
    assert (wrong.reward, wrong.correct) == (0.75, False)
    assert (right.answer, wrong.answer) == ("1", "2")


def test_accuracy_may_be_another_component(make: Make) -> None:
    length = RewardFunctionConfig(function=f"{MODULE}:length_of_text", name="length")
    worker = make(RewardFunctionConfig(function="math"), length, accuracy="length", accuracy_threshold=3.0)
    assert [result.correct for result in score(worker, "ab", "abc")] == [False, True]


def test_async_functions_share_the_loop_of_their_child(make: Make) -> None:
    echo = RewardFunctionConfig(function=f"{MODULE}:slow_echo", params={"seconds": 0.05})
    worker = make(echo, "loop_identity", children_per_worker=1)
    first, raised, second = score(worker, "0.5", "async raise", "2")
    assert (first.components["slow_echo"], second.components["slow_echo"]) == (0.5, 2.0)
    assert first.components["loop_identity"] == second.components["loop_identity"]
    assert (raised.outcome, raised.detail) == (ERROR, "slow_echo raised KeyError: 'missing'")
    hanging = make(RewardFunctionConfig(function=f"{MODULE}:slow_echo", params={"seconds": 99.0}), timeout_s=0.3)
    assert score(hanging, "1")[0].outcome is TIMEOUT


def test_coroutines_run_side_by_side_and_each_has_its_own_deadline(make: Make) -> None:
    worker = make("waits_or_blocks", "length_of_text", children_per_worker=1, timeout_s=0.6)
    worker.start()
    started_s = time.monotonic()
    results = score(worker, *["0.3"] * 20, "99", "own deadline", "bad")
    # One after the other they would take 20 * 0.3 s and more.
    assert time.monotonic() - started_s < 3.0
    assert [result.outcome for result in results] == [OK] * 20 + [TIMEOUT, ERROR, ERROR]
    assert results[0].components == {"waits_or_blocks": 0.3, "length_of_text": 3.0}
    assert all(0.3 <= result.duration_s < 1.5 for result in results[:20])
    assert results[20].detail == "waits_or_blocks did not answer within 0.6 s"
    assert results[21].detail == "waits_or_blocks raised TimeoutError: the judge did not answer"
    assert results[22].components == {"length_of_text": 3.0}


def test_a_coroutine_that_blocks_the_others_ends_with_its_child(make: Make) -> None:
    worker = make("waits_or_blocks", children_per_worker=1, timeout_s=0.2)
    worker.start()
    for misdeed in ("block", "stubborn"):
        started_s = time.monotonic()
        first, last = score(worker, "0", misdeed)
        # 2 * 0.2 s and the margin of 1 s.
        assert 1.4 <= time.monotonic() - started_s < 3.0
        assert (first.outcome, last.outcome) == (OK if misdeed == "stubborn" else TIMEOUT, TIMEOUT)
        assert last.detail.startswith("waits_or_blocks did not answer within 1.4 s: something in it blocks")
    assert score(worker, "0")[0].outcome is OK


def test_a_run_may_have_another_reward_for_each_row(make: Make) -> None:
    worker = make(
        RewardFunctionConfig(function="exact_match", rows={"kind": ("text",)}),
        RewardFunctionConfig(function=f"{MODULE}:length_of_text", name="length", tasks=("long",), weight=0.5),
        RewardFunctionConfig(function=f"{MODULE}:rank_by_length", name="rank", tasks=("long",)),
    )

    def of(task: str, row: dict[str, object]) -> list[tuple[object, ...]]:
        rewards = worker.score(group(["1", "22"], row=row, task=task)).rewards
        return [(result.reward, result.correct, dict(result.components)) for result in rewards]

    assert of("t", {"kind": "text"}) == [(1.0, True, {"exact_match": 1.0}), (0.0, False, {"exact_match": 0.0})]
    # 0.5 * length + rank, and the first that scores the row says what is right: a length of at least 1.
    assert of("long", {}) == [
        (1.5, True, {"length": 1.0, "rank": 1.0}),
        (3.0, True, {"length": 2.0, "rank": 2.0}),
    ]
    assert of("long", {"kind": "text"})[1] == (3.0, False, {"exact_match": 0.0, "length": 2.0, "rank": 2.0})
    (result,) = worker.score(group(["1"])).rewards
    assert (result.outcome, result.reward) == (ERROR, None)
    assert result.detail.startswith("the row cannot be scored: no component of the reward is for it (its task is 't'")


def test_a_function_that_imports_when_it_is_called_does_not_pay_for_it_in_its_call(make: Make) -> None:
    worker = make("imports_inside", timeout_s=0.5)
    assert [result.reward for result in score(worker, "a", "b", "c")] == [0.5, 0.5, 0.5]


def test_an_import_that_takes_too_long_ends(make: Make) -> None:
    slow = RewardFunctionConfig(function="tests.reward.slow_to_import:constant")
    worker = make(slow, import_timeout_s=0.5)
    with pytest.raises(RewardError, match=r"slow_to_import:constant were not imported within 0\.5 s"):
        worker.start()
    assert worker._children.process_ids() == []
    with pytest.raises(ConfigError) as raised:
        validate_reward_config(RewardConfig(functions=(slow,), import_timeout_s=0.5))
    assert str(raised.value) == (
        "the reward functions tests.reward.slow_to_import:constant were not imported within 0.5 s "
        "(reward.import_timeout_s): import less in their modules, or allow more"
    )
    validate_reward_config(RewardConfig(functions=(slow,)))


def test_batched_functions_see_the_whole_group(make: Make) -> None:
    worker = make("length_of_text", "rank_by_length", timeout_s=0.2)
    results = score(worker, "a", "nan", "abc")
    assert [result.outcome for result in results] == [OK, INVALID, OK]
    assert [result.components.get("rank_by_length") for result in results] == [1.0, None, 3.0]
    assert results[1].components == {"length_of_text": 3.0}
    for text, what in (("wrong length", "returned 1 values for 2 completions"), ("not a list", "instead of a list")):
        results = score(worker, text, "b")
        assert [result.outcome for result in results] == [INVALID, INVALID]
        assert what in results[0].detail
    # One request for the group, with the time of its two completions: 2 * 0.2 s.
    started_s = time.monotonic()
    assert [result.outcome for result in score(worker, "hang", "b")] == [TIMEOUT, TIMEOUT]
    assert 0.4 <= time.monotonic() - started_s < 0.4 + 0.5


def test_a_reward_model_is_asked_once_for_each_group(make: Make) -> None:
    asked: list[int] = []

    def model(items: Sequence[RewardInput]) -> list[float]:
        asked.append(len(items))
        if items[0].completion == "down":
            raise ConnectionError("actor is gone")
        if items[0].completion == "short":
            return [0.0]
        return [float("nan") if item.completion == "nan" else 0.5 for item in items]

    model_config = RewardModelConfig(path="unused", name="judge", weight=2.0)
    worker = make("length_of_text", model=model, reward_model=model_config)
    good, nan = score(worker, "abc", "nan")
    assert (good.reward, dict(good.components)) == (4.0, {"length_of_text": 3.0, "judge": 0.5})
    assert (nan.outcome, nan.detail) == (INVALID, "judge returned nan")
    assert [result.outcome for result in score(worker, "down", "b")] == [ERROR, ERROR]
    assert score(worker, "down")[0].detail == "judge raised ConnectionError: actor is gone"
    assert score(worker, "short", "b")[1].detail == "judge returned 1 values for 2 completions"
    assert asked == [2, 2, 1, 2]
    alone = make(model=model, reward_model=model_config)
    assert score(alone, "x")[0].reward == 1.0


def test_groups_are_scored_together_from_threads(make: Make) -> None:
    """Normal answers come out right from worker threads while another group hangs."""
    worker = make(RewardFunctionConfig(function="math"), "misbehave", timeout_s=5.0)
    answers = [f"It is {n} + 1 = {n + 1}. The answer is {n + 1}." for n in range(25)]
    results: dict[int, list[float | None]] = {}

    def run(index: int) -> None:
        scored = worker.score(group([*answers, "sleep"] if index == 0 else answers, ground_truth="7"))
        results[index] = [result.reward for result in scored.rewards]

    threads = [threading.Thread(target=run, args=(index,)) for index in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    # math 1.0 for n = 6 only, misbehave 1.0 for all; the hanging completion alone has no reward.
    expected: list[float | None] = [2.0 if n == 6 else 1.0 for n in range(25)]
    assert results == {0: [*expected, None], **dict.fromkeys(range(1, 5), expected)}


def test_hundred_gsm8k_answers_from_a_thread(make: Make) -> None:
    rows = [json.loads(line) for line in gsm8k_file("test").read_text().splitlines()[:100]]
    worker = make(RewardFunctionConfig(function="math"))
    rewards: list[tuple[float | None, ...]] = []

    def run() -> None:
        for row in rows:
            final = row["answer"].rsplit("####", 1)[1].strip()
            texts = [row["answer"], rf"So \boxed{{{final}}}.", f"The answer is {final}0.", f"So it is ${final}."]
            scored = worker.score(group(texts, ground_truth=row["answer"]))
            rewards.append(tuple(result.reward for result in scored.rewards))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(60)
    # A zero appended makes another number, except to 0 itself.
    assert [reward for reward in rewards if reward != (1.0, 1.0, 0.0, 1.0)] == []
    assert len(rewards) == 100


def test_children_are_kept_and_replaced(make: Make) -> None:
    worker = make("process_id", "misbehave", children_per_worker=1, timeout_s=0.3)
    before, _, after, again = score(worker, "a", "sleep", "b", "c")
    assert before.components["process_id"] != after.components["process_id"] == again.components["process_id"]


def test_children_hold_no_files_of_others_and_write_no_core(make: Make) -> None:
    worker = make("open_files", "core_limit", children_per_worker=4)
    results = score(worker, *"abcdefgh")
    # Its own request socket and what the event loop needs: one epoll and a pair of sockets.
    assert {result.components["open_files"] for result in results} == {4.0}
    assert {result.components["core_limit"] for result in results} == {0.0}


def test_a_template_that_dies_is_replaced(make: Make) -> None:
    worker = make("process_id")
    first = score(worker, "a")[0]
    os.kill(worker._children.process_ids()[0], signal.SIGKILL)
    _wait_until(lambda: not _is_running(int(first.components["process_id"])))
    second = score(worker, "a")[0]
    assert second.outcome is OK
    assert second.components["process_id"] != first.components["process_id"]


def test_functions_that_cannot_be_loaded_are_config_errors(make: Make, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no attribute 'absent'"):
        make("absent").start()
    (tmp_path / "ends_the_process.py").write_text("import os\nos._exit(7)\n")
    sys.path.append(str(tmp_path))
    try:
        with pytest.raises(RewardError, match=r"could not be imported .*exit code 7"):
            make(RewardFunctionConfig(function="ends_the_process:f")).start()
    finally:
        sys.path.remove(str(tmp_path))


def test_close_ends_all_processes_and_is_idempotent(make: Make, tmp_path: Path) -> None:
    worker = make("misbehave", timeout_s=60.0)
    worker.start()
    pids = worker._children.process_ids()
    assert len(pids) == 3
    note = tmp_path / "grandchildren"
    failed: list[str] = []

    def run() -> None:
        try:
            failed.extend(result.outcome for result in score(worker, f"grandchildren {note}", "sleep"))
        except RewardError as error:
            failed.append(str(error))

    thread = threading.Thread(target=run)
    thread.start()
    _wait_until(lambda: note.exists() and len(note.read_text().split()) == 2)
    pids += [int(pid) for pid in note.read_text().split()]
    started_s = time.monotonic()
    worker.close()
    worker.close()
    thread.join(5)
    assert time.monotonic() - started_s < 5
    assert failed
    _wait_until(lambda: not any(_is_running(pid) for pid in pids))
    with pytest.raises(RewardError, match="closed"):
        score(worker, "a")


def test_a_timeout_takes_grandchildren_along(make: Make, tmp_path: Path) -> None:
    note = tmp_path / "grandchildren"
    worker = make("misbehave", timeout_s=1.5)
    assert score(worker, f"grandchildren {note}")[0].outcome is TIMEOUT
    # The one in the child's group, and the one that had left it with setsid.
    _wait_until(lambda: not any(_is_running(int(pid)) for pid in note.read_text().split()))


@pytest.mark.parametrize("phase", ["scoring", "importing"])
def test_nothing_outlives_an_owner_that_is_killed(phase: str, tmp_path: Path) -> None:
    (tmp_path / "slow_import.py").write_text("import time\ntime.sleep(1000)\n")
    function = f"{MODULE}:misbehave" if phase == "scoring" else "slow_import:f"
    code = f"""
        import sys, threading, time
        sys.path.append({str(tmp_path)!r})
        from reward.config import RewardConfig, RewardFunctionConfig
        from reward.worker import RewardWorker
        from tests.reward.samples import group
        config = RewardConfig(functions=(RewardFunctionConfig(function={function!r}),), timeout_s=1000)
        worker = RewardWorker(config, "reward-0")
        threading.Thread(target=worker.score, args=(group(["busy", "sleep"]),), daemon=True).start()
        time.sleep(1000)
    """
    owner = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], cwd=Path(__file__).parents[2])
    try:
        wanted = 3 if phase == "scoring" else 1
        _wait_until(lambda: len(_descendants(owner.pid)) == wanted)
        time.sleep(0.3)  # so that the children are in their functions, or the template in its import
        pids = _descendants(owner.pid)
        assert len(pids) == wanted
    finally:
        owner.kill()
        owner.wait(10)
    _wait_until(lambda: not any(_is_running(pid) for pid in pids))


def _descendants(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += [int(child), *_descendants(int(child))]
    return found


def _is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def _wait_until(condition: Callable[[], bool], deadline_s: float = 10.0) -> None:
    end_s = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end_s, "the condition did not come true"
        time.sleep(0.02)
