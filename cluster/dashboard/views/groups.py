"""One group: the prompt, the G answers side by side, what they agree on, and how the prompt fared before."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cluster.dashboard.figures.series import known
from cluster.dashboard.records import GroupAddress, PromptVisit, RolloutRow
from cluster.dashboard.views.rollouts import address_text, finite, row_of
from cluster.dashboard.views.steps import group_status
from reward.math.readings import vote_of
from reward.types import RewardOutcome, all_rewards_equal
from rollout.types import FinishReason

if TYPE_CHECKING:
    from cluster.dashboard.index.store import RunStore

MAX_ANSWER_CHARS = 400
"""A longer "answer" is a text, compared as it is: the reward reads no more either."""


def group_page(store: "RunStore", address: GroupAddress) -> dict[str, Any] | None:
    """`/api/runs/{run}/groups/{address}`; None when there is no such group."""
    records = store.group(address)
    if not records:
        return None
    rows = [record.row for record in records]
    first, keys = records[0], [answer_key(record.row.answer) for record in records]
    clusters = clusters_of(rows, keys)
    cluster_of = {sample: number for number, cluster in enumerate(clusters) for sample in cluster["samples"]}
    status, reason = group_status(store, address, (row.advantage for row in rows))
    previous, following = store.neighbours(address)
    return {
        "phase": address.phase,
        "step": address.step,
        "group_id": address.group_id,
        "uid": first.row.uid,
        "epoch": first.row.epoch,
        "task": first.task,
        "question": first.question,
        "prompt_text": first.prompt_text,
        "truth": first.ground_truth,
        "worker": first.row.worker,
        "attempt": first.attempt,
        "status": status,
        "reason": reason,
        "rollouts": [
            row_of(record.row)
            | {
                "text": record.text,
                "detail": record.detail,
                "score_s": record.score_s,
                "cluster": cluster_of[record.row.sample_index],
            }
            for record in records
        ],
        "common_prefix": common_prefix([record.text for record in records]),
        "clusters": clusters,
        "flags": flags_of(rows, first.ground_truth, keys, clusters),
        "history": [visit_of(visit) for visit in store.prompt_history(first.row.uid)],
        "ledger": _ledger(store, address),
        "previous": address_text(previous),
        "next": address_text(following),
    }


def answer_key(answer: str | None) -> str | None:
    """What two answers have in common when they are the same: "$1,234" and "1234.". None for none."""
    if answer is None or len(answer) > MAX_ANSWER_CHARS:
        return answer
    return vote_of(answer)


def common_prefix(texts: Sequence[str]) -> int:
    """How much all texts begin with, in UTF-16 units as a page counts them, cut back to a white space.

    Equal texts have all of it in common, a single one nothing.
    """
    if len(texts) < 2:
        return 0
    low, high = min(texts), max(texts)  # what these two share, those between them share as well
    length = next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), min(len(low), len(high)))
    if low != high:
        # The last white space goes with what is folded; a prefix without any has no place to be cut at.
        while length > 0 and not low[length - 1].isspace():
            length -= 1
    return len(low[:length].encode("utf-16-le", "surrogatepass")) // 2


def visit_of(visit: PromptVisit) -> dict[str, Any]:
    """A line of a prompt's history."""
    return {
        "phase": visit.address.phase,
        "step": visit.address.step,
        "group_id": visit.address.group_id,
        "epoch": visit.epoch,
        "pass_rate": finite(visit.pass_rate),
        "reward_mean": finite(visit.mean_reward),
    }


def clusters_of(rows: Sequence[RolloutRow], keys: Sequence[str | None]) -> list[dict[str, Any]]:
    """Samples by answer, the most frequent first, those without an answer last."""
    counts = Counter(keys)
    order = sorted(counts, key=lambda key: (key is None, -counts[key]))
    clusters = []
    for key in order:
        members = [row for row, other in zip(rows, keys, strict=True) if other == key]
        rewards = known([finite(row.reward) for row in members])
        clusters.append(
            {
                "answer": key,
                "count": len(members),
                "samples": [row.sample_index for row in members],
                "reward_mean": sum(rewards) / len(rewards) if rewards else None,
                "num_correct": sum(row.correct is True for row in members),
            }
        )
    return clusters


def flags_of(
    rows: Sequence[RolloutRow], expected: str | None, keys: Sequence[str | None], clusters: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """What a person should look at, the most suspicious first. `expected`: the ground truth; `keys`: `answer_key` of
    each row's answer."""
    by_index = {row.sample_index: row for row in rows}
    flags = []
    for cluster in clusters:
        members = [by_index[sample] for sample in cluster["samples"]]
        verdicts = {verdict for row in members if (verdict := _verdict(row)) is not None}
        if cluster["answer"] is not None and len(verdicts) > 1:
            text = "the same answer was judged differently: the grader reads more than the answer, or is broken"
            flags.append(_flag("same_answer_different_reward", text, members))
    truth = answer_key(expected)
    missed = [r for r, key in zip(rows, keys, strict=True) if truth is not None and key == truth and r.correct is False]
    if missed:
        flags.append(_flag("truth_called_wrong", "the answer is the expected one and was judged wrong", missed))
    failed = [row for row in rows if row.outcome != RewardOutcome.OK]
    if failed:
        flags.append(_flag("not_scored", f"scoring failed: {', '.join(sorted({r.outcome for r in failed}))}", failed))
    cut = [row for row in rows if row.correct and row.finish == FinishReason.LENGTH]
    if cut:
        flags.append(_flag("right_but_truncated", "right, and stopped at the token limit", cut))
    rewards = [row.reward for row in rows if row.reward is not None]
    # Where steps are scored, or the KL is part of the reward, equal rewards may have advantages.
    has_advantages = any(row.advantage for row in rows)
    if rewards and len(rows) > 1 and all_rewards_equal(rewards) and not has_advantages:
        flags.append(_flag("equal_rewards", "all rewards are equal: the advantages are 0, nothing is learned", rows))
    return flags


def _verdict(row: RolloutRow) -> float | None:
    """What the grader made of the answer: right or wrong, else the reward if nothing but one function made it."""
    if row.correct is not None:
        return float(row.correct)
    return row.reward if len(row.components) <= 1 else None


def _flag(kind: str, text: str, rows: Sequence[RolloutRow]) -> dict[str, Any]:
    return {"kind": kind, "text": text, "samples": [row.sample_index for row in rows]}


def _ledger(store: "RunStore", address: GroupAddress) -> list[dict[str, Any]]:
    """The life of the group. An evaluation's groups are not in the ledger."""
    if address.phase == "eval":
        return []
    names = ("time_s", "state", "attempt", "worker", "step", "reason", "event")
    return [{name: line.get(name) for name in names} for line in store.ledger_history(address.group_id)]
