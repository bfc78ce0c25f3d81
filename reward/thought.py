"""The thought of a completion: what stands in `<think>` and is no part of its answer."""

THOUGHT_BEGIN, THOUGHT_END = "<think>", "</think>"


def without_thought(completion: str) -> str:
    """What comes behind the last thought; nothing where a thought was never ended."""
    before, end, after = completion.rpartition(THOUGHT_END)
    if end:
        return after
    return before + after if THOUGHT_BEGIN not in completion else ""
