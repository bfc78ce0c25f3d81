"""What is asked of a sampler: a batch of leases, and the group of each."""

from collections.abc import Sequence

from cluster.fleet.actors import SamplerActor
from cluster.fleet.deadlines import finish
from rollout.config import SamplingConfig
from rollout.types import Prompt, RolloutGroup, SampleRequest

SUBMIT_DEADLINE_S = 120.0


async def submit(sampler: SamplerActor, requests: Sequence[SampleRequest], sampling: SamplingConfig) -> None:
    """Hands a batch to one sampler; it adds it to its engine together."""
    await finish(
        sampler.handle.submit.remote(requests, sampling),
        deadline_s=SUBMIT_DEADLINE_S,
        stage="sample",
        actor=sampler.name,
        item=f"{len(requests)} groups",
    )


def deal(samplers: Sequence[SamplerActor], prompts: Sequence[Prompt]) -> list[tuple[SamplerActor, list[Prompt]]]:
    """Deals prompts out in turn, each sampler's share together, so that what an engine computes together depends on
    the prompts alone. Samplers without a share are left out."""
    shares = [(sampler, list(prompts[i :: len(samplers)])) for i, sampler in enumerate(samplers)]
    return [(sampler, share) for sampler, share in shares if share]


async def wait_group(sampler: SamplerActor, request: SampleRequest, deadline_s: float) -> RolloutGroup:
    return await finish(
        sampler.handle.wait_group.remote(request.key),
        deadline_s=deadline_s,
        stage="sample",
        actor=sampler.name,
        item=f"group {request.prompt.group_id}",
    )


async def answer_of(sampler: SamplerActor, request: SampleRequest) -> RolloutGroup:
    """A coroutine, so that a wait that is given up does not touch the remote call."""
    group: RolloutGroup = await sampler.handle.wait_group.remote(request.key)
    return group
