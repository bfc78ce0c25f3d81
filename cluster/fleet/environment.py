"""The environment of an actor's process, and the cores of the node that it is on."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cluster.fleet.deadlines import finish
from rollout.module_loading import USER_FOLDERS, python_path, user_folders

CORES_DEADLINE_S = 60.0
PASSED_ON = ("HF_HUB_OFFLINE", "HF_HOME", "SHOAL_CACHE", "TRANSFORMERS_OFFLINE")

# Libraries start Pythons of their own (vLLM asks one what a model is): not with the working directory before Python's
# modules, where a user may have a types.py. Reward workers do without: a function may count on that directory.
SAFE_PATH = {"PYTHONSAFEPATH": "1"}

# glibc gives large tensors back to the system, or cannot use a freed one for the next of its size, and each new one
# is page-faulted in: forward and backward of a 135M model took 16 s a step with it and 8 s with jemalloc, which Ray
# ships, told to keep what is freed for a while. Not for ever: batches differ in length, what one leaves fits the next
# badly, and a learner grew by 2 GB a step until it was killed.
JEMALLOC = {"MALLOC_CONF": "dirty_decay_ms:10000,muzzy_decay_ms:10000,oversize_threshold:0"}


# A thread that waits at a barrier turns round this often before it sleeps (libgomp, 300,000 by default: some
# milliseconds). Where another program wants its core, it turns away its share of time, and is not let run when there is
# work: 64 completions of quickstart's took 8.0 ms a token with two busy loops beside them, 4.9 ms with this, and alone
# 2.0 and 1.8. Fewer turns cost more alone (1,000: 2.0 and 3.7; 300: 2.4 and 3.4).
SPIN_COUNT = 2000


def threads_variables(threads: int) -> dict[str, str]:
    """How torch and vLLM use cores, which they read when they are imported; 0 threads leave their number to Ray. Who
    has set how threads wait is not overruled."""
    waiting = {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & set(os.environ)
    spin = {name: os.environ[name] for name in waiting} or {"GOMP_SPINCOUNT": str(SPIN_COUNT)}
    return spin | ({"OMP_NUM_THREADS": str(threads)} if threads else {})


def keep_memory() -> dict[str, str]:
    """Preloads Ray's jemalloc; where this build of Ray has none, the system's allocator stays."""
    import ray

    library = Path(ray.__file__).parent / "core" / "libjemalloc.so"
    return {"LD_PRELOAD": str(library), **JEMALLOC} if library.is_file() else {}


def with_ours(extra: Mapping[str, str]) -> dict[str, str]:
    """`extra`, and what is passed on explicitly, since an actor inherits the environment of Ray's node, not of this
    program: with it, where modules are found."""
    path = {"PYTHONPATH": os.pathsep.join(python_path()), USER_FOLDERS: os.pathsep.join(user_folders())}
    return {**{name: os.environ[name] for name in PASSED_ON if name in os.environ}, **path, **extra}


def own_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


async def cores_of_nodes(
    nodes: Sequence[str], *, here: str, ask: Callable[[str], Awaitable[int]] | None = None
) -> dict[str, int]:
    """Ray's id of a node -> its cores. `here` is the controller's node; the others are asked, with a task on each: what
    Ray counts as CPUs is what its node was told to offer. Errors: `StageTimeoutError`, `ActorFailedError`."""
    others = sorted(set(nodes) - {here})
    answers = await asyncio.gather(
        *(
            finish((ask or _ask_node)(node), deadline_s=CORES_DEADLINE_S, stage="start", actor=node, item="its cores")
            for node in others
        )
    )
    return {here: own_cores(), **dict(zip(others, answers, strict=True))}


def _ask_node(node: str) -> Any:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    on_it = NodeAffinitySchedulingStrategy(node, soft=False)
    ours = {"env_vars": with_ours({})}
    return ray.remote(own_cores).options(num_cpus=0, scheduling_strategy=on_it, runtime_env=ours).remote()
