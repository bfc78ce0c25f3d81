import asyncio
import os

import pytest

from cluster.errors import StageTimeoutError
from cluster.fleet import environment
from cluster.fleet.environment import cores_of_nodes, own_cores, threads_variables, with_ours
from rollout.module_loading import ROOT, USER_FOLDERS


def test_other_nodes_are_asked_for_their_cores_and_our_own_is_not() -> None:
    asked: list[str] = []

    async def ask(node: str) -> int:
        asked.append(node)
        return {"b": 64, "c": 96}[node]

    cores = asyncio.run(cores_of_nodes(["a", "b", "b", "c"], here="a", ask=ask))
    assert cores == {"a": own_cores(), "b": 64, "c": 96}
    assert asked == ["b", "c"]
    asked.clear()
    assert asyncio.run(cores_of_nodes(["a"], here="a", ask=ask)) == {"a": own_cores()}
    assert asked == []


def test_a_node_that_does_not_say_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "CORES_DEADLINE_S", 0.05)

    async def never(_: str) -> int:
        await asyncio.Event().wait()
        return 0

    with pytest.raises(StageTimeoutError, match="start: node-7 did not finish its cores"):
        asyncio.run(cores_of_nodes(["node-7"], here="a", ask=never))


def test_what_is_passed_on_is_named_and_ours_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", "/hub")
    monkeypatch.setenv("SHOAL_CACHE", "/theirs")
    monkeypatch.setenv("SECRET", "s")
    passed = with_ours({"SHOAL_CACHE": "/ours"})
    assert (passed["HF_HOME"], passed["SHOAL_CACHE"]) == ("/hub", "/ours")
    assert "SECRET" not in passed
    assert passed["PYTHONPATH"].split(os.pathsep)[0] == str(ROOT), "ours need not be installed"
    assert os.getcwd() in passed[USER_FOLDERS].split(os.pathsep)


def test_threads_wait_asleep_unless_somebody_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)
    assert threads_variables(3) == {"OMP_NUM_THREADS": "3", "GOMP_SPINCOUNT": "2000"}
    assert threads_variables(0) == {"GOMP_SPINCOUNT": "2000"}
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    assert threads_variables(3) == {"OMP_NUM_THREADS": "3", "OMP_WAIT_POLICY": "ACTIVE"}
