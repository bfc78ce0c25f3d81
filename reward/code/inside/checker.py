"""Inside a code sandbox of its own: the row's checker decides whether an output is right. Standard library only.

It has one of two forms:

    def check(input, output, expected)     returns whether `output` is right; all three are text
    a script                               called with three paths (input, expected output, output), prints its points:
                                           1 or more is right

The output comes from a program of the model and is data here: a checker that trips over it calls it wrong.
"""

from __future__ import annotations

import contextlib
import io
import sys

from reward.code.inside.program import _read, _take_channel, _write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_PATHS = ("/tmp/input.txt", "/tmp/expected.txt", "/tmp/output.txt")


def main(order: dict[str, Any]) -> None:
    """Answer {"input", "output", "expected"} with {"right": bool, "detail": text} until end of file."""
    requests, answers = _take_channel()
    names: dict[str, Any] = {"__name__": "checker"}
    code = compile(order["checker"], "checker.py", "exec", dont_inherit=True)
    if order["has_check"]:
        exec(code, names)
    while (request := _read(requests)) is not None:
        texts = (request["input"], request["expected"], request["output"])
        try:
            if order["has_check"]:
                right = bool(names["check"](texts[0], texts[2], texts[1]))
            else:
                right = _points(code, texts) >= 1
            answer = {"right": right, "detail": ""}
        except BaseException as error:  # noqa: BLE001 - boundary: the row's code on whatever a program wrote
            answer = {"right": False, "detail": f"its checker raised {type(error).__name__}"}
        _write(answers, answer)


def _points(code: Any, texts: tuple[str, ...]) -> float:
    for path, text in zip(_PATHS, texts, strict=True):
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    sys.argv[:] = ["checker.py", *_PATHS]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        exec(code, {"__name__": "__main__"})
    return float(printed.getvalue().split()[-1])
