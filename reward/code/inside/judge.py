"""Inside a second code sandbox: run the row's assertions, with the program's functions far away. Standard library only.

The program runs in a sandbox of its own and is reached only by calls whose answers are data, so it cannot touch what
decides here: not `assert`, not `==`, not the builtins, not this process. Messages, all length-prefixed JSON:

    to the owner    {"call": request}, to be put to the program, or {"passed": bool, "detail": "..."} for each test
    from the owner  {"names": [...]} first, then the answer to each call
"""

from __future__ import annotations

import ast
import builtins
import importlib
import sys

from reward.code.inside.program import _read, _take_channel, _write
from reward.code.inside.values import decode, encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_channel: tuple[int, int] = (0, 1)


class Remote:
    """An object or function of the program. It is equal to nothing but itself, and neither true nor false."""

    __slots__ = ("_target",)

    def __init__(self, target: dict[str, Any]) -> None:
        self._target = target

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls it where it is, in the program's sandbox."""
        return _ask({**self._target, "attribute": None}, args, kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if "handle" not in self._target:
            return Remote({"name": f"{self._target['name']}.{name}"})
        return _Method(self._target, name)

    def __bool__(self) -> bool:
        raise TypeError("the program returned an object where plain data is expected")


class _Method:
    """An attribute of an object of the program: called, or read by comparing it."""

    __slots__ = ("_name", "_target")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, target: dict[str, Any], name: str) -> None:
        self._target, self._name = target, name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return _ask({**self._target, "attribute": self._name}, args, kwargs)

    def __eq__(self, other: object) -> bool:
        return bool(_ask({**self._target, "attribute": self._name}, (), None) == other)

    def __bool__(self) -> bool:
        return bool(_ask({**self._target, "attribute": self._name}, (), None))


def _ask(request: dict[str, Any], args: tuple[Any, ...], kwargs: dict[str, Any] | None) -> Any:
    request["args"] = [encode(argument, _no_handle) for argument in args]
    request["kwargs"] = None if kwargs is None else {key: encode(value, _no_handle) for key, value in kwargs.items()}
    _write(_channel[1], {"call": request})
    answer = _read(_channel[0])
    if answer is None:
        raise SystemExit("the owner is gone")
    if "raised" in answer:
        raise _exception(str(answer["raised"]), str(answer["message"]))
    for index, changed in answer.get("changed", {}).items():
        _change(args[int(index)], decode(changed))
    return decode(answer["value"], lambda number: Remote({"handle": number}))


def _exception(name: str, message: str) -> Exception:
    """What the program raised, as the built-in class that the tests may expect."""
    kind = getattr(builtins, name, None)
    if not isinstance(kind, type) or not issubclass(kind, Exception):
        return Exception(f"{name}: {message}")
    try:
        return kind(message)
    except TypeError:  # UnicodeDecodeError and its like want more than a message
        return Exception(f"{name}: {message}")


def _no_handle(value: Any) -> int:
    # A public name would hide an attribute of the program's.
    if isinstance(value, Remote) and "handle" in value._target:  # noqa: SLF001  # as said
        return int(value._target["handle"])  # noqa: SLF001  # as above
    raise TypeError(f"a {type(value).__name__} cannot be handed to the program")


def _change(argument: Any, value: Any) -> None:
    """What the program did to a list, dict or set that it was given is done to the one that the tests hold."""
    if type(argument) is not type(value):
        return
    argument.clear()
    argument.extend(value) if isinstance(argument, list) else argument.update(value)


def main(order: dict[str, Any]) -> None:
    """Run `order["setup"]`, then each of `order["tests"]`, a source text that passes when it raises nothing."""
    global _channel
    _channel = _take_channel()
    known = _read(_channel[0])
    names: dict[str, Any] = {"__name__": "tests"}
    _bind(names, order, {str(name) for name in known["names"]})
    for number, test in enumerate(["", *order["tests"]]):
        try:
            source = order["setup"] if number == 0 else test
            exec(compile(source, "tests.py", "exec", dont_inherit=True), names)
            passed, detail = True, ""
        except BaseException as error:  # noqa: BLE001 - boundary: the tests, and whatever a wrong value makes them raise
            passed, detail = False, f"{type(error).__name__}: {str(error)[:200]}"
        _write(_channel[1], {"passed": passed, "detail": detail})
        if number == 0 and not passed:
            return


def _bind(names: dict[str, Any], order: dict[str, Any], defined: set[str]) -> None:
    """Give the tests what they name: standard modules from here, and from the program only what is its to give."""
    entry_point = order["entry_point"]
    used = {node.id for text in (order["setup"], *order["tests"]) for node in _loaded_names(text)}
    for name in sorted(used - set(dir(builtins))):
        # Before the program's names: `math.isclose` of a program may be true for everything.
        if name in sys.stdlib_module_names:
            names[name] = importlib.import_module(name)
        elif entry_point is None and name in defined:
            names[name] = Remote({"name": name})
    if entry_point is not None:
        candidate = Remote({"name": entry_point})
        names["candidate"] = candidate
        if entry_point.isidentifier():
            names[entry_point] = candidate
        elif entry_point.split("(")[0].split(".")[0].isidentifier():
            first = entry_point.split("(")[0].split(".")[0]
            names[first] = Remote({"name": first})


def _loaded_names(text: str) -> list[ast.Name]:
    return [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name)]
