"""The groups of a demo run, their scores, and what a learner computes from them. Pure: all chance is in `rng`."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cluster.config import RunConfig
from learner.algorithm.advantages import group_advantages
from learner.types import CompletionKey, TokenValues
from reward.math.extraction import extract_answer
from reward.types import RewardOutcome, RewardResult, ScoredGroup
from rollout.types import Completion, FinishReason, Prompt, TokenIds, VersionSpan
from tests.cluster.dashboard.demo_faults import FAULTY_SAMPLER, HEALTHY_GAP, Conditions
from tests.cluster.dashboard.demo_text import (
    EOS_ID,
    PIECES,
    TASK,
    Sum,
    decode,
    doubts,
    encode,
    worked_answer,
    wrong_answer,
)

MAX_TOKENS = 96
CLIP_EPS = 0.2
_ENDLESS = 0.02
"""Share of the completions that never end."""


def demo_prompt(task: Sum, *, index: int, epoch: int) -> Prompt:
    return Prompt(
        uid=task.uid,
        epoch=epoch,
        index=index,
        token_ids=tuple(encode(task.prompt_text)),
        text=task.prompt_text,
        question=task.question,
        ground_truth=str(task.truth),
        task=TASK,
    )


def sample_completions(
    rng: np.random.Generator, task: Sum, now: Conditions, *, number: int, version: int
) -> tuple[Completion, ...]:
    """[G] completions of the policy as it is now."""
    chance = 1 / (1 + math.exp(task.difficulty - now.skill))
    texts = [_answer_text(rng, task, now, right=rng.random() < chance) for _ in range(number)]
    if rng.random() < now.alike:
        texts = texts[:1] * number
    return tuple(_completion(rng, i, text, now, version) for i, text in enumerate(texts))


def score(rng: np.random.Generator, task: Sum, completion: Completion, now: Conditions) -> RewardResult:
    """What the reward worker says, its failures included."""
    found = extract_answer(completion.text)
    answer = None if found is None else found.text
    duration_s = 0.002 + 0.004 * float(rng.random())
    chance = rng.random()
    if chance < now.error_rate:
        detail = "math: TypeError: float() argument must be a string or a real number, not 'NoneType'"
        return RewardResult(
            outcome=RewardOutcome.ERROR, reward=None, detail=detail, answer=answer, duration_s=duration_s
        )
    if chance < now.error_rate + now.timeout_rate:
        detail = "killed at its deadline of 2 s"
        return RewardResult(outcome=RewardOutcome.TIMEOUT, reward=None, detail=detail, answer=answer, duration_s=2.0)
    right = answer == str(task.truth) and rng.random() >= now.missed_rate
    components = {"math": float(right), "length_penalty": -len(completion.token_ids) / MAX_TOKENS}
    return RewardResult(
        outcome=RewardOutcome.OK,
        reward=float(right),
        components=components,
        correct=right,
        answer=answer,
        duration_s=duration_s,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """What the learner computed for a batch."""

    advantages: dict[CompletionKey, float | None]
    values: dict[CompletionKey, TokenValues]
    metrics: dict[str, float]


def learn(rng: np.random.Generator, groups: Sequence[ScoredGroup], now: Conditions, config: RunConfig) -> Learned:
    """Log-probabilities with the gap that the sampler's weights have, and the metrics that follow from them."""
    all_advantages: dict[CompletionKey, float | None] = {}
    values: dict[CompletionKey, TokenValues] = {}
    parts: list[dict[str, np.ndarray]] = []
    for scored in groups:
        is_stale = scored.group.facts.worker == FAULTY_SAMPLER and now.stale_version is not None
        results = scored.rewards
        rewards = [result.reward or 0.0 for result in results]
        advantages = group_advantages(rewards, [result.reward is not None for result in results])
        for completion, advantage in zip(scored.group.payload.completions, advantages, strict=True):
            key = (scored.group_id, completion.sample_index)
            all_advantages[key] = advantage
            if advantage is None:
                continue
            gap = now.stale_gap if is_stale else HEALTHY_GAP
            tokens = _learner_tokens(rng, completion, now, gap)
            values[key] = _values(tokens)
            parts.append({**tokens, "advantage": np.full(len(completion.token_ids), advantage)})
    metrics = _metrics(parts, config)
    prompts = sum(len(scored.group.prompt.token_ids) * scored.num_scored for scored in groups)
    metrics["train/sequence_tokens"] = metrics["tokens"] + prompts
    metrics["grad_norm"] = (0.15 + 0.9 * _spread(all_advantages)) * float(rng.lognormal(0, 0.18))
    return Learned(advantages=all_advantages, values=values, metrics=metrics)


def _answer_text(rng: np.random.Generator, task: Sum, now: Conditions, *, right: bool) -> str:
    result = task.truth if right else wrong_answer(rng, task)
    text = worked_answer(rng, task, result, brief=now.brief)
    if rng.random() < _ENDLESS * (1 - now.alike):
        text += doubts(task, result, 4)
    elif rng.random() < 0.06 * (1 - now.alike):
        text += doubts(task, result, 1) + f" \\boxed{{{result}}}"
    return text


def _completion(rng: np.random.Generator, index: int, text: str, now: Conditions, version: int) -> Completion:
    whole = [*encode(text), EOS_ID]
    finish = FinishReason.STOP if len(whole) <= MAX_TOKENS else FinishReason.LENGTH
    ids = np.array(whole[:MAX_TOKENS], np.int32)
    logprobs = -np.clip(rng.exponential(_token_entropies(rng, ids, now.entropy)), 1e-5, 9.0)
    return Completion(
        sample_index=index,
        token_ids=ids,
        logprobs=logprobs.astype(np.float32),
        loss_mask=np.ones(len(ids), np.bool_),
        text=decode(ids.tolist()),
        finish_reason=finish,
        version_spans=(VersionSpan(policy_version=version, start=0, end=len(ids)),),
    )


_DECIDES = np.array([piece.strip().isdigit() or piece in {"To", "Let", "First", "Counting", "\n"} for piece in PIECES])


def _token_entropies(rng: np.random.Generator, ids: TokenIds, mean: float) -> np.ndarray:
    """[T] nats: what the policy has to decide is uncertain, the words between hardly."""
    weights = np.where(_DECIDES[ids], 2.4, 0.35) * rng.lognormal(-0.08, 0.4, len(ids))
    return mean * weights


def _learner_tokens(
    rng: np.random.Generator, completion: Completion, now: Conditions, gap: float
) -> dict[str, np.ndarray]:
    """[T] arrays by name. The gap has heavy tails, as rounding through many layers has."""
    rollout = completion.logprobs.astype(np.float64)
    policy = np.minimum(rollout + gap * rng.standard_t(6, len(rollout)), -1e-7)
    ref = np.minimum(policy - now.drift * (rng.standard_normal(len(rollout)) + 0.3), -1e-7)
    entropies = _token_entropies(rng, completion.token_ids, now.entropy)
    return {"rollout": rollout, "policy": policy, "ref": ref, "entropy": entropies}


def _values(tokens: dict[str, np.ndarray]) -> TokenValues:
    return TokenValues(
        policy_logprobs=tokens["policy"].astype(np.float32),
        ref_logprobs=tokens["ref"].astype(np.float32),
        entropies=tokens["entropy"].astype(np.float32),
    )


def _metrics(parts: Sequence[dict[str, np.ndarray]], config: RunConfig) -> dict[str, float]:
    """The learner's metrics (learner/algorithm/loss.py), over all tokens; `seconds` is not known here."""
    lengths = [len(part["policy"]) for part in parts]
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    log_ratio = joined["policy"] - joined["rollout"]
    ratio = np.exp(log_ratio)
    unclipped = ratio * joined["advantage"]
    clipped = np.clip(ratio, 1 - CLIP_EPS, 1 + CLIP_EPS) * joined["advantage"]
    difference = joined["ref"] - joined["policy"]
    kl_ref = np.expm1(difference) - difference
    weights = np.concatenate([np.full(length, 1 / (length * len(lengths))) for length in lengths])
    objective = np.minimum(unclipped, clipped) - config.learner.objective.kl.coef * kl_ref
    return {
        "loss": float(-(objective * weights).sum()),
        "lr": config.learner.lr,
        "ratio_mean": float(ratio.mean()),
        "ratio_std": float(ratio.std()),
        "effective_sample_size": float(ratio.mean() ** 2 / (ratio**2).mean()),
        "clip_fraction": float((clipped < unclipped).mean()),
        "clip_fraction_low": float(((clipped < unclipped) & (joined["advantage"] < 0)).mean()),
        "clip_fraction_high": float(((clipped < unclipped) & (joined["advantage"] > 0)).mean()),
        "kl_ref": float(kl_ref.mean()),
        "kl_rollout": float((ratio - 1 - log_ratio).mean()),
        "entropy": float(joined["entropy"].mean()),
        "max_abs_log_ratio": float(np.abs(log_ratio).max()),
        "tokens": float(sum(lengths)),
        "num_sequences": float(len(lengths)),
        "padding_fraction": 1 - sum(lengths) / (max(lengths) * len(lengths)),
    }


def _spread(advantages: dict[CompletionKey, float | None]) -> float:
    """Share of the completions that say anything about which way to go."""
    return sum(bool(advantage) for advantage in advantages.values()) / max(len(advantages), 1)
