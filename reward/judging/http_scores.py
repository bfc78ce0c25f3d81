"""The reward function `http`: a group is posted to an address of the user's, which answers with a score for each
completion.

    POST url  {"question": ..., "prompt": ..., "ground_truth": ..., "task": ..., "row": {...},
               "completions": [{"text": ..., "finish_reason": "stop", "num_tokens": 12, "sample_index": 0}, ...]}
    200       {"scores": [1.0, {"score": 0.5, "detail": "half of it"}, null, ...]}

null, and whatever is no finite number, is `invalid`: no score.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from reward.functions import register_asked
from reward.judging.asking import Asker, Bill, Judged, Request, estimated_tokens, failure, invalid
from reward.judging.config import HttpConfig
from reward.types import ComponentAnswer, RewardInput, RewardOutcome, one_line
from rollout.endpoint.client import EndpointError


@register_asked("http", settings=HttpConfig)
class HttpScores:
    """Scores groups. To be used from one event loop."""

    def __init__(self, config: HttpConfig, asker: Asker, *, component: str) -> None:
        self._config = config
        self._asker = asker
        self._component = component

    async def score(self, items: Sequence[RewardInput], bill: Bill) -> Judged:
        """One answer for each completion. Errors: `RewardError` where the journal cannot be written."""
        body = group_body(items, self._config.columns)
        tokens = estimated_tokens(len(json.dumps(body)))
        request = Request(path="", body=body, tokens=tokens, read=lambda answer: _scores_of(answer, len(items)))
        try:
            scores = (await self._asker.ask(request, bill))["scores"]
        except EndpointError as error:
            return Judged(answers=(failure(self._component, error),) * len(items), cost=bill.cost)
        return Judged(answers=tuple(map(self._answer, scores)), cost=bill.cost)

    def _answer(self, said: Any) -> ComponentAnswer:
        detail = ""
        if isinstance(said, Mapping):
            said, detail = said.get("score"), str(said.get("detail", ""))
        value = _number(said)
        if value is None:
            return invalid(self._component, f"the server gave {repr(said)[:80]} instead of a number")
        return ComponentAnswer(
            outcome=RewardOutcome.OK,
            value=value,
            detail=one_line(f"{self._component}: {detail}") if detail else "",
        )


def group_body(items: Sequence[RewardInput], columns: Sequence[str] | None) -> dict[str, Any]:
    """What is posted of a group: plain JSON. `columns` None has all of the row."""
    first = items[0]
    row = {key: value for key, value in first.row.items() if columns is None or key in columns}
    return {
        "question": first.question,
        "prompt": first.prompt,
        "ground_truth": first.ground_truth,
        "task": first.task,
        "row": row,
        "completions": [
            {
                "text": item.completion,
                "finish_reason": str(item.finish_reason),
                "num_tokens": len(item.token_ids),
                "sample_index": item.sample_index,
                "scores": dict(item.scores),
            }
            for item in items
        ],
    }


def _scores_of(answer: Any, num: int) -> dict[str, Any]:
    """Errors: `EndpointError` for what is not a list of so many."""
    scores = answer.get("scores") if isinstance(answer, dict) else None
    if not isinstance(scores, list) or len(scores) != num:
        what = f"{len(scores)} scores" if isinstance(scores, list) else "no list `scores`"
        raise EndpointError(f"the server gave {what} for {num} completions: {repr(answer)[:120]}")
    # NaN and infinities are no JSON, and no scores either.
    return {"scores": [repr(one) if isinstance(one, float) and not math.isfinite(one) else one for one in scores]}


def _number(said: Any) -> float | None:
    if isinstance(said, bool) or not isinstance(said, int | float):
        return None
    try:
        value = float(said)
    except OverflowError:  # an integer of hundreds of digits
        return None
    return value if math.isfinite(value) else None
