"""Rows of public data sets of programs, brought into Shoal's own columns (reward/code/row_tests.py).

    column                                            as in
    input_output                                      APPS, TACO
    public_test_cases, private_test_cases             LiveCodeBench (`metadata` has the function's name)
    public_tests, private_tests, generated_tests      CodeContests
    test_list                                         MBPP, with test_setup_code or test_imports
    test, with entry_point or without                 HumanEval, MBPP+, KodCode
    verification_info                                 verifiable-coding-problems, SYNTHETIC-1
    official_tests, with generated_checker            codeforces of open-r1
    tests, or the answer: {"inputs", "outputs"}       PRIME, DeepCoder, and others with the form of APPS

The first that a row has is taken; what Shoal itself reads (`tests` of its form, `test_code`) comes before all.
"""

import ast
import base64
import io
import json
import pickle
import zlib
from collections.abc import Callable, Mapping
from typing import Any

Columns = dict[str, Any]
_ACCEPTED = (
    "tests, test_code, input_output, public_test_cases, public_tests, test_list, test, verification_info, "
    "official_tests"
)


def own_columns(row: Mapping[str, Any], ground_truth: str | None, question: str) -> Columns:
    """Columns of Shoal's form for a row of any form.

    Raises:
        ValueError: no form that is known, or one that is not kept.
    """
    kept = {name: row[name] for name in ("program_setup", "checker", "entry_point") if row.get(name) is not None}
    for column, read in _FORMS.items():
        if row.get(column) is not None:
            return {**kept, **read(row, column, question)}
    model = row.get("reward_model")
    truths = (model.get("ground_truth") if isinstance(model, Mapping) else None, ground_truth)
    for truth in truths:
        if isinstance(truth, str) and truth.lstrip().startswith(("{", "[")):
            return {**kept, **_tests({**row, "tests": truth}, "tests", question)}
    raise ValueError(
        f"the row has no tests: it needs one of the columns {_ACCEPTED}, and has {', '.join(sorted(row)) or 'none'}"
    )


def _json(value: Any, column: str) -> Any:
    """What a column holds: text is JSON."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the column {column} is text, but no JSON: {error}") from error


def _tests(row: Mapping[str, Any], column: str, _: str) -> Columns:
    tests = _json(row[column], column)
    if isinstance(tests, Mapping):
        return _pairs(tests, column)
    found = _cases(tests, column) if _has_types(tests) else {"tests": tests}
    setup = {"test_setup": row["test_setup"]} if row.get("test_setup") is not None else {}
    return {**found, **setup}


def _has_types(tests: Any) -> bool:
    names = ("type", "testtype", "fn_name")
    return isinstance(tests, list) and any(
        isinstance(test, Mapping) and any(n in test for n in names) for test in tests
    )


def _own(row: Mapping[str, Any], column: str, _: str) -> Columns:
    return {name: row[name] for name in (column, "test_setup") if row.get(name) is not None}


def _pairs(value: Any, column: str) -> Columns:
    """{"inputs": [...], "outputs": [...], "fn_name": "f"} of APPS and those that took its form."""
    value = _json(value, column)
    if not isinstance(value, Mapping) or not isinstance(value.get("inputs"), (list, tuple)):
        raise ValueError(f'the column {column} has to hold {{"inputs": [...], "outputs": [...]}}')
    inputs, outputs = value["inputs"], value.get("outputs")
    if not isinstance(outputs, (list, tuple)) or len(inputs) != len(outputs) or not inputs:
        count = len(outputs) if isinstance(outputs, (list, tuple)) else "no"
        raise ValueError(
            f"the column {column} has {len(inputs)} inputs and {count} outputs: as many are needed, and one"
        )
    name = value.get("fn_name")
    if name is None:
        tests = [{"input": _lines(given, column), "output": _lines(output, column)} for given, output in _both(value)]
        return {"tests": tests}
    # A result stands there as it is, or in a list of one, and nothing says which.
    calls: list[Columns] = [
        {"input": given, "outputs": [output, output[0]] if isinstance(output, list) and len(output) == 1 else [output]}
        for given, output in _both(value)
    ]
    return {"tests": calls, "entry_point": name}


def _both(value: Mapping[str, Any]) -> list[tuple[Any, Any]]:
    return list(zip(value["inputs"], value["outputs"], strict=True))


def _lines(value: Any, column: str) -> str:
    """Text, which may be given as a list of its lines."""
    if isinstance(value, str):
        return value
    if isinstance(value, (list, tuple)) and all(isinstance(line, (str, int, float)) for line in value):
        return "\n".join(map(str, value))
    if isinstance(value, (int, float)):
        return str(value)
    raise ValueError(f"the column {column} has a test of a whole program that is no text: {value!r:.80}")


def _cases(value: Any, column: str, function: str | None = None) -> Columns:
    """[{"input": ..., "output": ..., "type": "stdin_stdout"}, ...]; `function` is the name for those of a function."""
    cases = _json(value, column)
    if not isinstance(cases, (list, tuple)) or not cases:
        raise ValueError(f"the column {column} has no tests")
    tests = []
    names = set()
    for case in cases:
        if not isinstance(case, Mapping) or "input" not in case or "output" not in case:
            raise ValueError(
                f'the column {column} has a test that is not {{"input": ..., "output": ...}}: {case!r:.80}'
            )
        kind = case.get("testtype", case.get("type"))
        is_call = kind in ("functional", "function_call") or case.get("fn_name") is not None
        names.add((case.get("fn_name") or function) if is_call else None)
        plain = {"input": case["input"], "output": case["output"]}
        tests.append(plain if is_call else {name: _lines(text, column) for name, text in plain.items()})
        if is_call and names == {None}:
            raise ValueError(f"the column {column} has tests of a function, and nothing tells its name")
    if len(names) != 1:
        raise ValueError(f"the column {column} tests several things: {', '.join(sorted(map(str, names)))}")
    (name,) = names
    return {"tests": tests} if name is None else {"tests": tests, "entry_point": name}


def _live_code_bench(row: Mapping[str, Any], column: str, _: str) -> Columns:
    metadata = _json(row.get("metadata") or {}, "metadata")
    function = metadata.get("func_name") if isinstance(metadata, Mapping) else None
    cases = _json(row[column], column)
    private = row.get("private_test_cases")
    if private:
        cases = [*cases, *_private_cases(private)]
    return _cases(cases, column, function)


class _NoObjects(pickle.Unpickler):
    """Reads text and numbers. A pickle that names anything else, which could run, is refused."""

    def find_class(self, module: str, name: str) -> Any:
        raise ValueError(f"it names {module}.{name}")


def _private_cases(value: Any) -> list[Any]:
    """A list, its JSON, or that pickled, compressed and in base64."""
    if isinstance(value, str) and not value.lstrip().startswith("["):
        try:
            value = _NoObjects(io.BytesIO(zlib.decompress(base64.b64decode(value)))).load()
        except (ValueError, zlib.error, pickle.UnpicklingError, EOFError) as error:
            raise ValueError(f"the column private_test_cases cannot be read: {error}") from error
    value = _json(value, "private_test_cases")
    if not isinstance(value, list):
        raise ValueError("the column private_test_cases has no list of tests")
    return value


def _code_contests(row: Mapping[str, Any], column: str, _: str) -> Columns:
    tests = []
    for name in (column, "private_tests", "generated_tests"):
        part = _json(row.get(name) or {"input": [], "output": []}, name)
        if not isinstance(part, Mapping) or not {"input", "output"} <= set(part):
            raise ValueError(f'the column {name} has to hold {{"input": [...], "output": [...]}}')
        if len(part["input"]) != len(part["output"]):
            raise ValueError(f"the column {name} has {len(part['input'])} inputs and {len(part['output'])} outputs")
        tests += [
            {"input": given, "output": output} for given, output in zip(part["input"], part["output"], strict=True)
        ]
    return {"tests": tests}


def _mbpp(row: Mapping[str, Any], column: str, _: str) -> Columns:
    setup = row.get("test_setup_code") or "\n".join(row.get("test_imports") or [])
    return {"tests": _json(row[column], column), "test_setup": setup}


def _human_eval(row: Mapping[str, Any], column: str, question: str) -> Columns:
    columns: Columns = {"test_code": row[column]}
    entry_point = row.get("entry_point")
    # The question is the head of a program: imports, helpers, and the function without its body.
    for text in (row.get("prompt"), question):
        if isinstance(entry_point, str) and isinstance(text, str) and _defines(text, entry_point):
            return {**columns, "program_head": text}
    return columns


def _defines(text: str, name: str) -> bool:
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return False
    return any(isinstance(node, ast.FunctionDef) and node.name == name for node in tree.body)


def _verification_info(row: Mapping[str, Any], column: str, _: str) -> Columns:
    info = _json(row[column], column)
    if not isinstance(info, Mapping) or "test_cases" not in info:
        raise ValueError(f'the column {column} has to hold {{"test_cases": [...]}}')
    language = info.get("language")
    if language not in (None, "python", "python3"):
        raise ValueError(f"the column {column} wants a program in {language!r}, and only Python is run")
    return _cases(info["test_cases"], column)


def _codeforces(row: Mapping[str, Any], column: str, _: str) -> Columns:
    if row.get("input_mode") not in (None, "stdio"):
        raise ValueError(
            f"the row wants its input from a file (input_mode {row['input_mode']!r}), and only stdin is given"
        )
    found = _cases(row[column], column)
    return {**found, "checker": row["generated_checker"]} if row.get("generated_checker") else found


_FORMS: dict[str, Callable[[Mapping[str, Any], str, str], Columns]] = {
    "test_code": _own,
    "tests": _tests,
    "input_output": lambda row, column, _: _pairs(row[column], column),
    "public_test_cases": _live_code_bench,
    "public_tests": _code_contests,
    "test_list": _mbpp,
    "test": _human_eval,
    "verification_info": _verification_info,
    "official_tests": _codeforces,
}
"""Column -> how the row is read that has it; the first one counts."""
