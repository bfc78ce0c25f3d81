"""When the engines get the learner's weights: all that can be reached after a step, one alone after its restart.

after_step: engines at rest (`cluster.loop.drain`) -> publish       given up when the run is about to end
alone:      restarted sampler -> the current weights, verified -> serves
"""

from collections.abc import Sequence

from cluster.fleet.actors import SamplerActor
from cluster.fleet.recovery import Recovery
from cluster.loop.drain import Drain
from cluster.record.run_record import RunRecord
from cluster.types import EventKind, now_s
from cluster.weights.learner_group import LearnerGroup
from cluster.weights.weight_sync import SyncReport, WeightSync


class Publisher:
    """Brings weight syncs together with everything else that uses engines and ranks."""

    def __init__(
        self, sync: WeightSync, learners: LearnerGroup, recovery: Recovery, drain: Drain, record: RunRecord
    ) -> None:
        self._sync = sync
        self._learners = learners
        self._recovery = recovery
        self._drain = drain
        self._record = record
        self._step = 0
        self.weights_digest = ""
        """Of the weights that engines hold; "" between a training step and its sync."""
        recovery.restarted.subscribe(self.alone)

    async def after_step(self, step: int) -> None:
        """Brings the engines to rest and publishes. Not where the run is about to end: whoever resumes syncs first.
        `step` training steps are done."""
        async with self._drain.at_rest() as is_at_rest:
            if is_at_rest:
                await self.publish(step)

    async def publish(self, step: int) -> None:
        """To every sampler whose process runs; one that fails on the way is restarted and synced alone, later."""
        self._step = step
        await self._sync_to(self._recovery.reachable_samplers())

    async def alone(self, sampler: SamplerActor) -> None:
        """Gives a restarted sampler the current weights. Errors: why it could not be."""
        report = await self._sync_to([sampler])
        if report.failed:
            raise report.failed[sampler.name]

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
            "bytes_sent": report.num_bytes_sent,
            "canary_max_error": report.canary_max_error,
            "canary_mean_error": report.canary_mean_error,
        }
        for sampler in samplers:
            if sampler.name in report.failed:
                self._recovery.sync_failed(sampler, incarnations[sampler.name], report.failed[sampler.name])
            elif sampler.incarnation == incarnations[sampler.name]:
                self._recovery.supervisor.synced(sampler.name, report.policy_version)
                self._record.span(EventKind.SYNC, sampler.name, started_s, step=self._step, extra=extra)
        return report
