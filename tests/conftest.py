"""Which tests go to which process when they are spread over the cores (`pytest -n 2`)."""

import os
from pathlib import Path
from typing import Any

# A call of Ray's outside a session fails, here and in what tests start. Left alone it joins the cluster that another
# test has, and this process is ended 60 s after that cluster: it was seen as a worker of xdist that died of itself.
os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"

import pytest
from xdist.scheduler import LoadScopeScheduling

TESTS = Path(__file__).parent
RUNS = ("tests/faults/", "tests/integration/", "tests/browser/test_live_run.py")
"""Where tests start runs (Ray, vLLM, DeepSpeed). One process has them all: reference runs are made once for a session,
and two runs at a time would wait for each other's cores."""
NO_RUNS = (
    "tests/integration/test_vllm_engine.py",
    "tests/faults/test_boundaries.py",
    "tests/faults/test_checker.py",
    "tests/faults/test_curriculum.py",
    "tests/faults/test_guards.py",
    "tests/faults/test_soak.py",
)
"""Neighbours of these that start none."""
BROWSER = "tests/browser/"


def scope_of(nodeid: str) -> str:
    """Tests of one scope go to one process, in their order: what a scope shares is then made once."""
    if nodeid.startswith(RUNS) and not nodeid.startswith(NO_RUNS):
        return "runs"
    if nodeid.startswith(BROWSER):
        return "browser"  # one Chromium and one dashboard
    return nodeid.split("::")[0]


class ByScope(LoadScopeScheduling):  # type: ignore[misc]  # pytest-xdist has no types
    """Hands out whole scopes, in the order in which they were collected."""

    def _split_scope(self, nodeid: str) -> str:
        return scope_of(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByScope | None:
    if config.getvalue("dist") != "load":
        return None  # asked for by name, as `make faults` does, where every test may go anywhere
    config.option.loadscopereorder = False
    return ByScope(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # The longest scope is handed out first, since the others can be spread around it. Files keep their order.
    order = {"runs": 0, "browser": 1}
    items.sort(key=lambda item: order.get(scope_of(item.nodeid), 2))
