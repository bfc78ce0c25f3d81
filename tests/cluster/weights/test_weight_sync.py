import asyncio
import dataclasses
from math import inf, nan
from typing import Any

import numpy as np
import pytest

from cluster.config import RunConfig
from cluster.errors import ActorFailedError, ObjectLostError
from cluster.weights.weight_sync import MAX_CANARY_TOKENS, SyncReport, WeightSync, serve_as_loaded
from learner.config import LearnerConfig
from rollout.config import ReasoningGymTask, RolloutConfig
from rollout.errors import WeightSyncError
from rollout.transfer.manifest import WeightChunk
from rollout.types import Prompt
from tests.cluster.examples import ok, scored
from tests.cluster.fakes import FakeLearner, FakeSampler, Journal, fleet_of

PROMPT = scored(0, [ok(1), ok(0)]).group.prompt
CONFIG = RunConfig(
    task=ReasoningGymTask(generator="chain_sum"),
    rollout=RolloutConfig(dtype="float32"),
    learner=LearnerConfig(dtype="float32"),
)

BF16 = CONFIG.model_copy(update={"rollout": RolloutConfig(dtype="bfloat16")})


def publish(
    journal: Journal, samplers: list[FakeSampler], *, prompt: Prompt = PROMPT, config: RunConfig = CONFIG
) -> SyncReport:
    fleet = fleet_of(samplers=samplers, learners=[FakeLearner(journal), FakeLearner(journal, name="learner-1")])
    return asyncio.run(WeightSync(config, fleet, [prompt]).publish(fleet.samplers))


def two_samplers(journal: Journal, **second: float) -> list[FakeSampler]:
    shift = second.get("canary_shift", 0.0)
    return [FakeSampler(journal, name="sampler-0"), FakeSampler(journal, name="sampler-1", canary_shift=shift)]


def test_the_order_is_begin_chunks_digest_finish_canary_serve() -> None:
    journal: Journal = []
    samplers = two_samplers(journal)
    report = publish(journal, samplers)
    assert (report.policy_version, report.num_bytes) == (4, 40)
    assert (report.canary_max_error, report.canary_mean_error) == (0.0, 0.0)
    assert [sampler.served for sampler in samplers] == [4, 4]
    for name in ("sampler-0", "sampler-1"):
        seen = [entry[0] + "".join(entry[2:]) for entry in journal if entry[1] == name]
        chunks = [f"chunk{i}" for i in range(5)]
        assert seen == ["begin4", *chunks, "finish", "canary", "canary", "serve4"]
    stages = ["begin", "chunk", "digest", "finish", "canary", "serve"]
    first = [min(i for i, entry in enumerate(journal) if entry[0] == stage) for stage in stages]
    last = [max(i for i, entry in enumerate(journal) if entry[0] == stage) for stage in stages]
    assert all(end < begin for end, begin in zip(last, first[1:], strict=False))


class Keeping(FakeLearner):
    """Has kept the weights "before", and tells of each chunk how it was asked for."""

    def weight_manifest(self) -> Any:
        return dataclasses.replace(super().weight_manifest(), keeps=True, base="before")

    def weight_chunk(self, index: int, *, as_delta: bool) -> WeightChunk:
        self._journal.append(("delta" if as_delta else "whole", self._name, str(index)))
        return super().weight_chunk(index, as_delta=False)

    def weight_bytes_sent(self) -> int:
        return 7 if self._name == "learner-0" else 0


class Kept(FakeSampler):
    """A sampler that has kept the bytes of some weights."""

    kept = "before"

    def begin_update(self, manifest: Any, *, serving_continues: bool) -> str:
        super().begin_update(manifest, serving_continues=serving_continues)
        return self.kept


@pytest.mark.parametrize(("kept", "told", "num_bytes"), [("before", "delta", 7), ("", "whole", 40), ("a", "whole", 40)])
def test_what_changed_is_told_only_where_every_sampler_has_what_it_changed_from(
    kept: str, told: str, num_bytes: int
) -> None:
    journal: Journal = []
    samplers = [Kept(journal, name="sampler-0"), Kept(journal, name="sampler-1")]
    samplers[1].kept = kept
    learners = [Keeping(journal, name=f"learner-{rank}") for rank in range(2)]
    fleet = fleet_of(samplers=samplers, learners=learners)
    report = asyncio.run(WeightSync(CONFIG, fleet, [PROMPT]).publish(fleet.samplers))
    assert (report.num_bytes, report.num_bytes_sent) == (40, num_bytes)
    asked = [entry for entry in journal if entry[0] in ("delta", "whole")]
    assert sorted(asked) == [(told, f"learner-{rank}", str(i)) for rank in range(2) for i in range(5)]


class Scoring(FakeLearner):
    """Tells when it is asked for the canary's prompts, and does not answer before it is let go."""

    def __init__(self, journal: Journal, *, name: str = "learner-0") -> None:
        super().__init__(journal, name=name)
        self.may_end = asyncio.Event()

    async def score_tokens(self, sequences: Any) -> Any:  # type: ignore[override]
        self._journal.append(("score", self._name))
        await self.may_end.wait()
        return super().score_tokens(sequences)


class Finishing(FakeSampler):
    """Takes in what came when it is let go, and then maybe fails."""

    error: Exception | None = None
    may_end: asyncio.Event

    async def finish_update(self, sent_digest: str) -> str:  # type: ignore[override]
        self._journal.append(("finishing", self._name))
        await self.may_end.wait()
        if self.error is not None:
            raise self.error
        return super().finish_update(sent_digest)


@pytest.mark.parametrize("error", [None, WeightSyncError("came altered")])
def test_the_learner_computes_the_canary_while_engines_take_in_what_came(error: Exception | None) -> None:
    async def main() -> None:
        journal: Journal = []
        sampler = Finishing(journal, name="sampler-0")
        sampler.error, sampler.may_end = error, asyncio.Event()
        learners = [Scoring(journal, name=f"learner-{rank}") for rank in range(2)]
        fleet = fleet_of(samplers=[sampler], learners=learners)
        # One token has no longest text, which would be asked for first.
        prompt = dataclasses.replace(PROMPT, token_ids=(5, 5, 5))
        publishing = asyncio.ensure_future(WeightSync(CONFIG, fleet, [prompt]).publish(fleet.samplers))
        for _ in range(1000):
            await asyncio.sleep(0)
        asked = [entry for entry in journal if entry[0] in ("score", "finishing")]
        assert sorted(asked) == [("finishing", "sampler-0"), ("score", "learner-0"), ("score", "learner-1")]
        assert not publishing.done()
        sampler.may_end.set()
        if error is None:
            for learner in learners:
                learner.may_end.set()
            assert (await publishing).synced == ("sampler-0",)
        else:  # while the ranks still compute
            with pytest.raises(WeightSyncError, match="came altered"):
                await asyncio.wait_for(publishing, 5)
            assert sampler.served is None
            for learner in learners:
                learner.may_end.set()
            await asyncio.sleep(0.01)

    asyncio.run(main())


def test_only_a_few_chunks_are_on_their_way_and_every_rank_takes_part() -> None:
    journal: Journal = []
    publish(journal, two_samplers(journal))
    for rank in ("learner-0", "learner-1"):
        gathered = [int(entry[2]) for entry in journal if entry[:2] == ("gather", rank)]
        assert gathered == [0, 1, 2, 3, 4]
    for number, entry in enumerate(journal):
        if entry[0] == "gather":
            loaded = sum(e[:2] == ("chunk", "sampler-1") for e in journal[:number])
            assert int(entry[2]) - loaded <= 3


@pytest.mark.parametrize("shift", [0.01, -0.01, nan, inf])
def test_an_engine_that_computes_otherwise_is_named_and_nobody_serves(shift: float) -> None:
    journal: Journal = []
    samplers = two_samplers(journal, canary_shift=shift)
    with pytest.raises(WeightSyncError, match=r"sampler-1 does not compute (with weights version 4|as the learner)"):
        publish(journal, samplers)
    assert [sampler.served for sampler in samplers] == [None, None]
    assert not any(entry[0] == "serve" for entry in journal)


def test_a_difference_within_the_tolerance_is_reported() -> None:
    journal: Journal = []
    report = publish(journal, two_samplers(journal, canary_shift=5e-6))
    assert report.canary_max_error == pytest.approx(5e-6, abs=6e-8)
    # Rounding makes 0.05 of each token, says the learner.
    report = publish(journal, two_samplers(journal, canary_shift=0.1), config=BF16)
    assert report.canary_mean_error == pytest.approx(0.1)
    with pytest.raises(WeightSyncError, match=r"differ by 0.2 nats at most and 0.2 on average, where rounding expl"):
        publish(journal, two_samplers(journal, canary_shift=0.2), config=BF16)
    strict = BF16.model_copy(update={"weight_sync": BF16.weight_sync.model_copy(update={"canary_max_error": 0.05})})
    with pytest.raises(WeightSyncError, match=r"where rounding explains 0.05 and"):
        publish(journal, two_samplers(journal, canary_shift=0.1), config=strict)


class Moving(FakeLearner):
    """Its log-probabilities go down by `speed` times their place with each version; rounding makes 0.01 of a token."""

    speed = 0.05

    def score_tokens(self, sequences: Any) -> Any:
        self._journal.append(("score", self._name))
        return [
            -1.0 - self.speed * self.version * np.arange(1, len(sequence), dtype=np.float32) for sequence in sequences
        ]

    def rounding_errors(self, sequences: Any) -> Any:
        self._journal.append(("rounding", self._name))
        return [np.resize([0.01, -0.01], len(sequence) - 1).astype(np.float32) for sequence in sequences]


class Following(FakeSampler):
    """Computes as `Moving` of a version, `kept` of which it never takes; its errors of 0.01 look like rounding."""

    kept = 0.0
    version = 0

    def prompt_logprobs(self, sequences: Any) -> Any:
        took = (1.0 - self.kept) * self.version
        return [
            -1.0
            - Moving.speed * took * np.arange(1, len(sequence), dtype=np.float32)
            + np.resize([0.01, -0.01], len(sequence) - 1).astype(np.float32)
            for sequence in sequences
        ]


@pytest.mark.parametrize("kept", [0.0, 0.25])
def test_an_engine_that_keeps_a_part_of_the_old_weights_is_found_in_bf16(kept: float) -> None:
    journal: Journal = []
    learner, sampler = Moving(journal), Following(journal, name="sampler-0")
    sampler.kept = kept
    # A limit that would let every size pass: what is found is found by its slope.
    config = BF16.model_copy(
        update={"weight_sync": BF16.weight_sync.model_copy(update={"canary_max_error": 9.0, "canary_mean_error": 9.0})}
    )
    fleet = fleet_of(samplers=[sampler], learners=[learner])
    prompt = dataclasses.replace(PROMPT, token_ids=tuple(range(1, 41)))
    sync = WeightSync(config, fleet, [prompt])

    def publish_version(version: int) -> None:
        learner.version = sampler.version = version
        asyncio.run(sync.publish(fleet.samplers))

    publish_version(0)
    if kept:
        with pytest.raises(WeightSyncError, match=r"old weights in part: .* 25% of their change from version 0 to"):
            publish_version(1)
        assert sampler.served is None
    else:
        publish_version(1)
        publish_version(2)
        assert sampler.served == 2


@pytest.mark.parametrize("explained", [0.25, 0.0])
def test_what_rounding_keeps_of_an_fp32_learner_is_no_old_weight(explained: float) -> None:
    """Weights on bf16's grid, as files have them: an engine's stay there until half a unit has gathered."""

    class Rounding(Moving):
        def rounding_errors(self, sequences: Any) -> Any:
            kept = self.speed * explained * self.version
            return [kept * np.arange(1, len(sequence), dtype=np.float32) for sequence in sequences]

    journal: Journal = []
    learner, sampler = Rounding(journal), Following(journal, name="sampler-0")
    sampler.kept = 0.25
    config = BF16.model_copy(
        update={
            "learner": BF16.learner.model_copy(update={"dtype": "float32"}),
            "weight_sync": BF16.weight_sync.model_copy(update={"canary_max_error": 9.0, "canary_mean_error": 9.0}),
        }
    )
    fleet = fleet_of(samplers=[sampler], learners=[learner])
    sync = WeightSync(config, fleet, [dataclasses.replace(PROMPT, token_ids=tuple(range(1, 41)))])
    learner.version = sampler.version = 0
    asyncio.run(sync.publish(fleet.samplers))
    learner.version = sampler.version = 1
    if explained:
        asyncio.run(sync.publish(fleet.samplers))
        assert sampler.served == 1
    else:
        with pytest.raises(WeightSyncError, match="old weights in part"):
            asyncio.run(sync.publish(fleet.samplers))


def test_rounding_is_measured_once_and_again_before_anybody_is_blamed() -> None:
    journal: Journal = []
    learner, sampler = Moving(journal), Following(journal, name="sampler-0")
    fleet = fleet_of(samplers=[sampler], learners=[learner])
    sync = WeightSync(BF16, fleet, [dataclasses.replace(PROMPT, token_ids=tuple(range(1, 41)))])
    for version in range(3):
        learner.version = sampler.version = version
        asyncio.run(sync.publish(fleet.samplers))
    assert [entry[0] for entry in journal].count("rounding") == 2, "of the longest text, and of the prompts"
    sampler.version, learner.version = 3, 4
    with pytest.raises(WeightSyncError, match="sampler-0 does not compute with weights version 4"):
        asyncio.run(sync.publish(fleet.samplers))
    assert [entry[0] for entry in journal].count("rounding") == 3


def test_an_altered_chunk_ends_the_sync_before_the_digest() -> None:
    journal: Journal = []
    samplers = [FakeSampler(journal, name="sampler-0", altered=1)]
    with pytest.raises(WeightSyncError, match="tensor w1 of weights version 4 arrived altered"):
        publish(journal, samplers)
    assert samplers[0].served is None
    assert {"digest", "finish", "canary", "serve"}.isdisjoint(entry[0] for entry in journal)


def test_another_digest_of_the_whole_means_that_nobody_serves() -> None:
    journal: Journal = []
    samplers = two_samplers(journal)
    samplers[1].forgets = True
    with pytest.raises(WeightSyncError, match="sampler-1: differ"):
        publish(journal, samplers)
    assert [sampler.served for sampler in samplers] == [None, None]
    assert not any(entry[0] in ("canary", "serve") for entry in journal)


@pytest.mark.parametrize("is_rank_0_dead", [False, True])
def test_a_chunk_that_is_gone_is_the_fault_of_whoever_does_not_answer(is_rank_0_dead: bool) -> None:
    died = ActorFailedError("sync", "learner-0", "the digest", "ActorDiedError: killed", died=True)

    class Starved(FakeSampler):
        def load_chunk(self, chunk: WeightChunk) -> None:
            raise ObjectLostError("sync: chunk 0 was gone")

    class Dead(FakeLearner):
        def weights_digest(self) -> str:
            raise died

    journal: Journal = []
    samplers = [Starved(journal, name="sampler-0"), FakeSampler(journal, name="sampler-1")]
    learner = (Dead if is_rank_0_dead else FakeLearner)(journal)
    sync = WeightSync(CONFIG, fleet := fleet_of(samplers=samplers, learners=[learner]), [PROMPT])
    if is_rank_0_dead:
        with pytest.raises(ActorFailedError, match="learner-0 failed on the digest"):
            asyncio.run(sync.publish(fleet.samplers))
        assert [sampler.served for sampler in samplers] == [None, None]
        return
    report = asyncio.run(sync.publish(fleet.samplers))
    assert (report.synced, list(report.failed)) == (("sampler-1",), ["sampler-0"])
    assert [sampler.served for sampler in samplers] == [None, 4]


def test_prompts_of_one_token_cannot_verify_anything() -> None:
    journal: Journal = []
    samplers = two_samplers(journal)
    with pytest.raises(WeightSyncError, match="version 4 cannot be verified"):
        publish(journal, samplers, prompt=dataclasses.replace(PROMPT, token_ids=(1,)))
    assert [sampler.served for sampler in samplers] == [None, None]


def test_a_long_prompt_is_cut() -> None:
    sent: list[int] = []

    class Measuring(FakeSampler):
        def prompt_logprobs(self, sequences: Any) -> Any:
            sent.extend(len(sequence) for sequence in sequences)
            return super().prompt_logprobs(sequences)

    prompt = dataclasses.replace(PROMPT, token_ids=tuple(range(1, 1000)))
    publish([], [Measuring([], name="sampler-0")], prompt=prompt)
    assert sent == [CONFIG.model.max_context_tokens - 1, MAX_CANARY_TOKENS], "the longest text first, and once"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_differs_far_into_a_text_alone_is_found_at_the_first_sync(dtype: str) -> None:
    class Windowed(FakeSampler):
        """As the learner for 200 tokens."""

        def prompt_logprobs(self, sequences: Any) -> Any:
            found = super().prompt_logprobs(sequences)
            return [logprobs_T - np.float32(9.0) * (np.arange(len(logprobs_T)) >= 200) for logprobs_T in found]

    samplers: list[FakeSampler] = [Windowed([], name="sampler-0")]
    prompt = dataclasses.replace(PROMPT, token_ids=tuple(range(1, 41)))
    config = CONFIG if dtype == "float32" else BF16
    with pytest.raises(
        WeightSyncError, match=r"in a text of 511 tokens, .* 9 nats at most .* from token 201 on; lower"
    ):
        publish([], samplers, prompt=prompt, config=config)
    assert samplers[0].served is None
    short = config.model_copy(update={"model": config.model.model_copy(update={"max_context_tokens": 200})})
    publish([], samplers, prompt=prompt, config=short)
    assert samplers[0].served == 4


def test_an_evaluation_alone_serves_the_weights_of_the_model_directory() -> None:
    samplers = two_samplers([])
    asyncio.run(serve_as_loaded(fleet_of(samplers=samplers), 1.0))
    assert [sampler.served for sampler in samplers] == [0, 0]
