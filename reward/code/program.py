"""Finds the program in a completion."""

import re

_FENCE = re.compile(
    r"^[ \t]*(`{3,}|~{3,})[ \t]*([\w+-]*)[^\n`]*\n(.*?)(?:^[ \t]*\1[ \t]*$|\Z)", re.DOTALL | re.MULTILINE
)
_PYTHON = ("python", "python3", "py", "")


def program_of(completion: str) -> str:
    """The last fenced block that is Python or says no language, else the last of any; without a fence the whole text.

    A block that is not closed ends with the completion.
    """
    blocks = [(match.group(2).lower(), match.group(3)) for match in _FENCE.finditer(completion)]
    if not blocks:
        return completion
    ours = [text for language, text in blocks if language in _PYTHON]
    return ours[-1] if ours else blocks[-1][1]
