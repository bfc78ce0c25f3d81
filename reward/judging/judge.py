"""The reward function `judge`: a model behind an OpenAI-compatible address judges the completions of a group.

    score, reference, rubric   one request for each completion
    pairwise                   two for each pair, with either of them first; the share of comparisons won
    rank                       one for the group; evenly from 1 for the best to 0 for the worst

A reply without a verdict is `invalid`, a request without an answer `error` or `timeout`: none of them is a score.

Dimension: G completions of a group.
"""

import asyncio
import hashlib
import json
import random
from collections.abc import Sequence
from typing import Any

from reward.functions import register_asked
from reward.judging.asking import Asker, Bill, Judged, failure, invalid
from reward.judging.chat import chat_request
from reward.judging.config import COMPARING, JudgeConfig
from reward.judging.pairs import Pair, outcome_of, pairs_of, win_rates
from reward.judging.prompts import (
    BETTER,
    Question,
    asked,
    pairwise_question,
    rank_question,
    reference_question,
    rubric_question,
    score_question,
)
from reward.judging.rubric import Rubric, read_rubric
from reward.judging.verdicts import (
    MalformedVerdictError,
    Verdict,
    choice_of,
    places_of,
    read_verdict,
    share_of,
    truth_of,
)
from reward.thought import without_thought
from reward.types import ComponentAnswer, RewardInput, RewardOutcome, one_line
from rollout.endpoint.client import EndpointError

MIN_DECIDED = 0.5
"""Share of its comparisons that a completion needs for a win rate: of fewer it would tell of the judge's failures."""
MAX_REASON_CHARACTERS = 2000
_WON = {"A": 1.0, "B": 0.0, "tie": 0.5}


def _check(config: JudgeConfig) -> None:
    if config.rubric is not None:
        read_rubric(config.rubric)


def _check_row(item: RewardInput, config: JudgeConfig) -> None:
    if config.mode == "reference" and not item.ground_truth:
        raise ValueError("the row has no ground truth, and mode is reference")


@register_asked("judge", settings=JudgeConfig, check=_check, check_row=_check_row)
class Judge:
    """Scores groups. To be used from one event loop."""

    def __init__(self, config: JudgeConfig, asker: Asker, *, component: str, seed: int) -> None:
        """`seed` is the run's: orders and codes follow from it."""
        self._config = config
        self._asker = asker
        self._component = component
        self._seed = seed
        self._rubric = read_rubric(config.rubric) if config.rubric is not None else Rubric(criteria=())

    async def score(self, items: Sequence[RewardInput], bill: Bill) -> Judged:
        """One answer for each completion. Errors: `RewardError` where the journal cannot be written."""
        mode = self._config.mode
        if mode in COMPARING and len(items) == 1:
            why = f"mode {mode} compares completions, and the group has one"
            answers = [ComponentAnswer(outcome=RewardOutcome.ERROR, value=None, detail=f"{self._component}: {why}")]
        elif mode == "rank":
            answers = await self._rank(items, bill)
        elif mode == "pairwise":
            answers = await self._pairwise(items, bill)
        else:
            answers = list(await asyncio.gather(*(self._one(item, bill) for item in items)))
        return Judged(answers=tuple(answers), cost=bill.cost)

    async def _one(self, item: RewardInput, bill: Bill) -> ComponentAnswer:
        config = self._config
        texts = [("QUESTION", item.question)]
        if config.mode == "reference":
            texts.append(("REFERENCE", item.ground_truth or ""))
        texts.append(("COMPLETION", self._text(item)))
        try:
            if config.mode == "score":
                verdict = await self._verdict(score_question(*config.scale), texts, ["score"], bill)
                value = share_of(verdict.values["score"], *config.scale, "the score")
            elif config.mode == "reference":
                verdict = await self._verdict(reference_question(), texts, ["correct"], bill)
                value = float(truth_of(verdict.values["correct"], "correct"))
            else:
                verdict = await self._verdict(rubric_question(self._rubric.criteria), texts, ["scores"], bill)
                value = self._rubric.value_of(self._shares(verdict.values["scores"]))
        except (MalformedVerdictError, EndpointError) as error:
            return self._failed(error)
        says = next(iter(verdict.values.values()))
        return self._ok(value, f"{json.dumps(says)}: {verdict.reason}", {"says": says, "reason": verdict.reason})

    def _shares(self, scores: Any) -> dict[str, float]:
        names = [one.name for one in self._rubric.criteria]
        if not isinstance(scores, dict) or scores.keys() != set(names):
            raise MalformedVerdictError(f"the scores are not those of {', '.join(names)}")
        return {one.name: share_of(scores[one.name], *one.scale, one.name) for one in self._rubric.criteria}

    async def _rank(self, items: Sequence[RewardInput], bill: Bill) -> list[ComponentAnswer]:
        num = len(items)
        order = list(range(num))
        self._chance(items).shuffle(order)
        texts = [("QUESTION", items[0].question)]
        texts += [(f"COMPLETION {shown}", self._text(items[index])) for shown, index in enumerate(order, start=1)]
        try:
            verdict = await self._verdict(rank_question(num), texts, ["ranking"], bill)
            places = places_of(verdict.values["ranking"], num)
        except (MalformedVerdictError, EndpointError) as error:
            return [self._failed(error)] * num
        answers: list[ComponentAnswer | None] = [None] * num
        for shown, (index, place) in enumerate(zip(order, places, strict=True), start=1):
            says = {"place": place + 1, "of": num, "shown_as": shown, "reason": verdict.reason}
            answers[index] = self._ok(1 - place / (num - 1), f"place {place + 1:g} of {num}: {verdict.reason}", says)
        return [answer for answer in answers if answer is not None]

    async def _pairwise(self, items: Sequence[RewardInput], bill: Bill) -> list[ComponentAnswer]:
        num = len(items)
        pairs = pairs_of(num, self._config.opponents, self._chance(items))
        found = await asyncio.gather(*(self._compare(items, pair, bill) for pair in pairs))
        outcomes = {pair: one[0] for pair, one in zip(pairs, found, strict=True) if isinstance(one, tuple)}
        answers = []
        for index, (rate, num_decided) in enumerate(win_rates(num, outcomes)):
            own = [(pair, one) for pair, one in zip(pairs, found, strict=True) if index in pair]
            if rate is None or num_decided < MIN_DECIDED * len(own):
                error = next(one for _, one in own if not isinstance(one, tuple))
                answers.append(self._failed(error))
                continue
            against = [self._against(items, index, pair, *one) for pair, one in own if isinstance(one, tuple)]
            says = {"won": rate, "decided": num_decided, "of": len(own), "against": against}
            answers.append(self._ok(rate, f"wins {rate:.0%} of {num_decided} comparisons", says))
        return answers

    async def _compare(
        self, items: Sequence[RewardInput], pair: Pair, bill: Bill
    ) -> tuple[float, list[str]] | MalformedVerdictError | EndpointError:
        """(what the first of the pair has of it, the judge's reasons), or why that is not known."""

        async def first_has(first: int, second: int) -> tuple[float, str]:
            texts = [
                ("QUESTION", items[first].question),
                ("COMPLETION A", self._text(items[first])),
                ("COMPLETION B", self._text(items[second])),
            ]
            verdict = await self._verdict(pairwise_question(), texts, ["better"], bill)
            return _WON[choice_of(verdict.values["better"], BETTER, "better")], verdict.reason

        both = await asyncio.gather(first_has(*pair), first_has(pair[1], pair[0]), return_exceptions=True)
        reasons, has = [], []
        for place, one in enumerate(both):
            if isinstance(one, MalformedVerdictError | EndpointError):
                return one
            if isinstance(one, BaseException):
                raise one
            has.append(one[0] if place == 0 else 1.0 - one[0])
            reasons.append(one[1])
        return outcome_of(*has), reasons

    def _against(
        self, items: Sequence[RewardInput], index: int, pair: Pair, outcome: float, reasons: list[str]
    ) -> dict[str, Any]:
        other = pair[1] if pair[0] == index else pair[0]
        return {
            "sample_index": items[other].sample_index,
            "outcome": outcome if pair[0] == index else 1.0 - outcome,
            "reasons": [reason[: MAX_REASON_CHARACTERS // 8] for reason in reasons],
        }

    async def _verdict(
        self, question: Question, texts: Sequence[tuple[str, str]], keys: Sequence[str], bill: Bill
    ) -> Verdict:
        """Errors: `MalformedVerdictError`, `EndpointError`."""
        request = asked(question, self._config.instructions, texts, self._seed)
        reply = await self._asker.ask(chat_request(self._config, request), bill)
        try:
            return read_verdict(reply["text"], request.codes.verdict, keys)
        except MalformedVerdictError as error:
            if reply["cut_off"]:
                raise MalformedVerdictError(f"the reply was cut off at max_tokens: {error}") from error
            raise

    def _text(self, item: RewardInput) -> str:
        """What the judge sees of a completion."""
        return item.completion if self._config.reads == "completion" else without_thought(item.completion).strip()

    def _chance(self, items: Sequence[RewardInput]) -> random.Random:
        """The same for the same group of the same run."""
        said = json.dumps([self._seed, items[0].prompt, [item.completion for item in items]])
        return random.Random(hashlib.sha256(said.encode()).digest())

    def _ok(self, value: float, detail: str, says: dict[str, Any]) -> ComponentAnswer:
        if "reason" in says:
            says["reason"] = says["reason"][:MAX_REASON_CHARACTERS]
        return ComponentAnswer(
            outcome=RewardOutcome.OK,
            value=value,
            detail=one_line(f"{self._component}: {detail.removesuffix(': ')}"),
            verdict={"mode": self._config.mode, **says},
        )

    def _failed(self, error: MalformedVerdictError | EndpointError) -> ComponentAnswer:
        if isinstance(error, EndpointError):
            return failure(self._component, error)
        return invalid(self._component, str(error))
