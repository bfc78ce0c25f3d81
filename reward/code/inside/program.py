"""Inside the code sandbox: load a program and call its functions on request. Standard library only.

Everything in this process belongs to the program, this file included: it can answer what it likes. So an answer is
only ever a value that is compared elsewhere; there is nothing here that says "passed".

    request  {"name": "f" or "handle": 3, "attribute": "m"|null, "args": [...], "kwargs": {...} or null: read only}
    answer   {"value": ...} or {"raised": "ValueError", "message": "..."}, and {"changed": {"0": ...}} for arguments
"""

from __future__ import annotations

import json
import os
import struct
import sys

from reward.code.inside.values import decode, encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def main(order: dict[str, Any]) -> None:
    """Load `order["source"]`, then answer requests on what were stdin and stdout until end of file."""
    requests, answers = _take_channel()
    module = type(sys)("solution")
    sys.modules["solution"] = module
    handles: list[Any] = []
    loaded: BaseException | None = None
    try:
        # As Python does, and not as this file is compiled. Not "__main__": what stands below
        # `if __name__ == "__main__"` is for another use.
        exec(compile(order["source"], "solution.py", "exec", dont_inherit=True), module.__dict__)
    except BaseException as error:  # noqa: BLE001 - boundary: a program of the model
        loaded = error
    names = sorted(name for name in module.__dict__ if not name.startswith("__")) if loaded is None else []
    _write(answers, {"names": names} if loaded is None else _raised(loaded))
    while (request := _read(requests)) is not None:
        try:
            answer = _answer(request, module.__dict__, handles)
        except BaseException as error:  # noqa: BLE001 - boundary: a program of the model
            answer = _raised(error)
        _write(answers, answer)


def _answer(request: dict[str, Any], names: dict[str, Any], handles: list[Any]) -> dict[str, Any]:
    def handle_of(value: Any) -> int:
        handles.append(value)
        return len(handles) - 1

    # The name comes from the row or its tests: "f", "Solution().f". It is an expression in the program's own world.
    target = handles[request["handle"]] if "handle" in request else eval(request["name"], names)
    if request["attribute"] is not None:
        target = getattr(target, request["attribute"])
    if request["kwargs"] is None:
        return {"value": encode(target, handle_of)}
    args = decode(request["args"], handles.__getitem__)
    kwargs = {key: decode(value, handles.__getitem__) for key, value in request["kwargs"].items()}
    result = target(*args, **kwargs)
    # An object of the program's own class is wanted for its methods, even where the class is a list's.
    is_own = isinstance(target, type) and target.__module__ == "solution"
    value = {"r": handle_of(result)} if is_own else encode(result, handle_of)
    # Functions that change a list in place are tested by looking at it afterwards.
    changed = {
        str(index): after
        for index, (before, after) in enumerate(zip(request["args"], map(_encoded_container, args), strict=True))
        if after is not None and after != before
    }
    return {"value": value, "changed": changed}


def _encoded_container(value: Any) -> Any:
    try:
        return encode(value) if isinstance(value, (list, dict, set)) else None
    except (TypeError, RecursionError):
        return None


def _raised(error: BaseException) -> dict[str, Any]:
    try:
        message = str(error)[:200]
    except Exception:  # noqa: BLE001 - boundary: an exception class of the program
        message = ""
    # The nearest built-in class: what tests can name in `except`.
    name = next((kind.__name__ for kind in type(error).__mro__ if kind.__module__ == "builtins"), "Exception")
    return {"raised": name, "message": message}


def _take_channel() -> tuple[int, int]:
    """Our own copies of stdin and stdout; the program's are /dev/null, so that its prints are not taken for answers."""
    requests, answers = os.dup(0), os.dup(1)
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.close(null)
    return requests, answers


def _read(requests: int) -> Any:
    received = b""
    while len(received) < 4 or len(received) < 4 + struct.unpack("!I", received[:4])[0]:
        wanted = 4 if len(received) < 4 else 4 + struct.unpack("!I", received[:4])[0]
        chunk = os.read(requests, wanted - len(received))
        if not chunk:
            return None
        received += chunk
    return json.loads(received[4:])


def _write(answers: int, message: Any) -> None:
    payload = json.dumps(message).encode("ascii")
    view = memoryview(struct.pack("!I", len(payload)) + payload)
    while view:
        view = view[os.write(answers, view) :]
