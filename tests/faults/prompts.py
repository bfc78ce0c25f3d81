"""Prompts of a virtual run."""

from rollout.prompts.stream import PromptStreamState, StreamFacts
from rollout.types import Prompt


class Stream:
    """Prompts without end."""

    def __init__(self, index: int = 0) -> None:
        self._index = index

    @classmethod
    def restore(cls, state: PromptStreamState) -> "Stream":
        return cls(state.index)

    def next(self) -> Prompt:
        index, self._index = self._index, self._index + 1
        return prompt_of(index)

    def state(self) -> PromptStreamState:
        return PromptStreamState(index=self._index, seed=0, fingerprint="d")

    def learn(self, results: object) -> None: ...

    def facts(self) -> StreamFacts:
        return StreamFacts(tasks=("t",))


def prompt_of(index: int) -> Prompt:
    return Prompt(
        uid=f"{index:016x}",
        epoch=0,
        index=index,
        token_ids=(1, 2, index),
        text="q",
        question="q",
        ground_truth="3",
        task="t",
    )
