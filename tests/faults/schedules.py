"""Random faults from a seed: the same seed gives the same schedule, and the run in virtual time the same history."""

import random
from dataclasses import dataclass, replace

SAMPLER = ("submit", "wait_group", "probe", "begin_update", "load_chunk", "finish_update", "prompt_logprobs", "serve")
LEARNER = ("train_step", "weight_manifest", "weight_chunk", "weights_digest", "score_tokens", "save", "load")
METHODS = {"sampler": (*SAMPLER, "ready"), "learner": (*LEARNER, "__ray_ready__"), "reward": ("score", "start")}
KINDS = {
    "sampler": ("kill", "kill", "hang", "slow", "raise", "engine", "lose"),
    "learner": ("kill", "kill", "hang", "slow"),
    "reward": ("kill", "kill", "hang", "slow", "raise"),
}
RUN_S = 60.0
"""About what a run without faults takes, in virtual seconds: faults by the clock fall into it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that goes wrong, either at the n-th call of a method or at a time.

    Example:
        Fault(actor="sampler-1", kind="hang", duration_s=45.0, method="wait_group", nth=3)
    """

    actor: str
    kind: str
    """kill, hang, slow, raise, engine (the engine's own error), corrupt (a byte of a chunk of weights), or lose (what
    was sampled is gone from the object store)."""
    duration_s: float = 0.0
    """Virtual seconds. Of a hang, until SIGCONT; of something slow, what it takes longer; how long what is lost can
    still be had."""
    method: str = ""
    nth: int = 0
    """Which call of `method`, from 1, over all processes that the actor has had."""
    at_s: float | None = None
    """Instead: virtual seconds after the start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A run and what goes wrong in it."""

    seed: int
    faults: tuple[Fault, ...]
    steps: int
    num_samplers: int
    num_learners: int
    num_rewards: int
    max_policy_lag: int
    deterministic: bool
    max_restarts: int
    streaming: bool = False

    @property
    def may_corrupt(self) -> bool:
        return any(fault.kind == "corrupt" for fault in self.faults)


def schedule_of(seed: int) -> Schedule:
    rng = random.Random(seed)
    counts = {"sampler": rng.randint(1, 3), "learner": rng.randint(1, 2), "reward": rng.randint(1, 2)}
    deterministic = rng.random() < 0.4
    faults = [_fault(rng, counts) for _ in range(rng.randint(1, 6))]
    streaming = seed % 3 == 0 and not deterministic
    if streaming:
        faults = [replace(f, method="accumulate") if f.method == "train_step" and f.nth % 4 else f for f in faults]
    if rng.random() < 0.04:
        faults.append(Fault(actor="sampler-0", kind="corrupt", method="load_chunk", nth=rng.randint(1, 9)))
    return Schedule(
        seed=seed,
        faults=tuple(faults),
        steps=rng.randint(2, 4),
        num_samplers=counts["sampler"],
        num_learners=counts["learner"],
        num_rewards=counts["reward"],
        max_policy_lag=0 if deterministic else rng.randint(0, 2),
        deterministic=deterministic,
        max_restarts=rng.randint(0, 2) if rng.random() < 0.1 else 60,
        streaming=streaming,
    )


def _fault(rng: random.Random, counts: dict[str, int]) -> Fault:
    role = rng.choices(("sampler", "learner", "reward"), (6, 3, 2))[0]
    actor = f"{role}-{rng.randrange(counts[role])}"
    kind = rng.choice(KINDS[role])
    duration_s = rng.choice((2.0, 15.0, 70.0, 1000.0))
    if rng.random() < 0.3:
        return Fault(actor=actor, kind=rng.choice(("kill", "hang")), duration_s=duration_s, at_s=rng.random() * RUN_S)
    method = rng.choice(METHODS[role])
    if kind == "lose":
        method, duration_s = "wait_group", rng.choice((0.0, 1.0, 5.0))
    return Fault(actor=actor, kind=kind, duration_s=duration_s, method=method, nth=rng.randint(1, 8))
