"""When the engines get the learner's weights: all that can be reached after a step, one alone after its restart.

after_step: pause admission -> drain (as configured) -> publish       given up when the run is about to end
alone:      restarted engine -> the current weights, verified -> serves
"""

import asyncio
from collections.abc import Callable, Sequence

from cluster.config import RunConfig
from cluster.fleet.actors import SamplerActor
from cluster.fleet.deadlines import first_of
from cluster.fleet.recovery import Recovery
from cluster.groups.buffer import GroupBuffer
from cluster.groups.pipeline import GroupPipeline
from cluster.loop.background import BackgroundTasks
from cluster.record.run_record import RunRecord
from cluster.types import now_s
from cluster.weights.learner_group import LearnerGroup
from cluster.weights.weight_sync import SyncReport, WeightSync


class Publisher:
    """Brings weight syncs together with everything else that uses engines and ranks. `step` tells the training steps
    that are done; `stop` is set when the run was asked to end."""

    def __init__(
        self,
        config: RunConfig,
        sync: WeightSync,
        *,
        learners: LearnerGroup,
        recovery: Recovery,
        buffer: GroupBuffer,
        pipeline: GroupPipeline,
        record: RunRecord,
        background: BackgroundTasks,
        stop: asyncio.Event,
        step: Callable[[], int],
    ) -> None:
        self._config = config
        self._sync = sync
        self._learners = learners
        self._recovery = recovery
        self._buffer = buffer
        self._pipeline = pipeline
        self._record = record
        self._background = background
        self._stop = stop
        self._step = step
        self.weights_digest = ""
        """Of the weights that engines hold; "" between a training step and its sync."""

    async def after_step(self) -> None:
        """Drains the engines as configured and publishes. Not where the run is about to end, for a stop or for the
        error of a task beside it: a group that is waited for may then never come, and whoever resumes syncs first."""
        await self._buffer.pause()
        in_time, is_quiet = await first_of(self._background.unless_failed(self._quiet()), self._stop)
        if not (in_time and is_quiet):
            return
        try:
            await self.publish()
        finally:
            self._pipeline.launching.release()

    async def _quiet(self) -> None:
        """Returns with `launching` held: nothing is being given to engines, nor sampled where they are drained."""
        if self._config.rollout.on_weight_sync == "drain":
            await self._buffer.wait_until(lambda: self._buffer.num_unscored == 0)
        await self._pipeline.launching.acquire()

    async def publish(self) -> None:
        """To every sampler whose process runs; one that fails on the way is restarted and synced alone, later."""
        await self._sync_to(self._recovery.reachable_samplers())

    async def alone(self, sampler: SamplerActor) -> int:
        """Gives a restarted sampler the current weights; returns their version. Errors: why it could not be."""
        report = await self._sync_to([sampler])
        if report.failed:
            raise report.failed[sampler.name]
        return report.policy_version

    async def _sync_to(self, samplers: Sequence[SamplerActor]) -> SyncReport:
        started_s = now_s()
        incarnations = {sampler.name: sampler.incarnation for sampler in samplers}

        async def publish() -> SyncReport:
            for sampler in samplers:
                self._recovery.supervisor.update_began(sampler.name)
            return await self._sync.publish(samplers)

        report = await self._learners.use(publish)
        self.weights_digest = report.weights_digest
        extra = {
            "policy_version": report.policy_version,
            "bytes": report.num_bytes,
            "canary_max_error": report.canary_max_error,
            "canary_mean_error": report.canary_mean_error,
        }
        for sampler in samplers:
            if sampler.name in report.failed:
                self._recovery.sync_failed(sampler, incarnations[sampler.name], report.failed[sampler.name])
            elif sampler.incarnation == incarnations[sampler.name]:
                self._recovery.supervisor.synced(sampler.name, report.policy_version)
                self._record.span("sync", sampler.name, started_s, step=self._step(), extra=extra)
        return report
