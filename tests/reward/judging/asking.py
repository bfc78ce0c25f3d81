"""Groups scored by asking servers, as a reward worker does it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reward.judging.asked import AskedFunctions, AskingSite
from reward.judging.asking import Judged
from reward.judging.config import HttpConfig, JudgeConfig
from reward.types import RewardInput
from tests.reward.samples import item

DEADLINE_S = 60.0


def items(*texts: str, ground_truth: str | None = "1", **fields: Any) -> list[RewardInput]:
    """The completions of a group."""
    return [item(text, ground_truth, sample_index=place, **fields) for place, text in enumerate(texts)]


def judge(base_url: str, **params: Any) -> JudgeConfig:
    """A judge there."""
    return JudgeConfig.model_validate({"base_url": base_url, "model": "m", **params})


def judged(
    config: JudgeConfig | HttpConfig,
    *groups: Sequence[RewardInput],
    run_dir: Path | None = None,
    worker: str = "reward-0",
    **site: Any,
) -> list[Judged]:
    """The groups, asked about at the same time by one worker."""
    functions: Mapping[str, JudgeConfig | HttpConfig] = {"judge": config}
    asked = AskedFunctions(functions, worker, AskingSite(run_dir=run_dir, **site))
    try:
        return [future.result(DEADLINE_S) for future in [asked.submit("judge", group) for group in groups]]
    finally:
        asked.close()
