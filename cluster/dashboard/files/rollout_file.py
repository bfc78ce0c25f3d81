"""A rollouts file -> what the index keeps of it. Reads in parts, so that long completions need not fit into memory."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.compute
import pyarrow.parquet
from numpy.typing import NDArray

from cluster.dashboard.files.arrow_arrays import arrow_types, list_lengths, numpy_of
from cluster.dashboard.files.features import Lists, gaps, mean_entropy, repetition
from cluster.dashboard.files.sampled_tokens import NOT_SAMPLED, counted, only, read_episodes, stretches
from cluster.dashboard.files.tail import open_inside
from reward.math.extraction import extract_answer
from rollout.episode_types import EpisodeFacts

compute: Any = pyarrow.compute  # it makes its functions when it is loaded, where no checker sees them

MAX_WORD_CHARS = 500
"""Of an answer; a model may write a page where a number is asked for."""
_MAX_QUESTION_CHARS = 2000
SEPARATOR = b"\xff"
"""Between completions, so that nothing is found across two of them."""
_PREVIEW_CHARS = 160
_ANSWER_TAIL_CHARS = 2000
_PART_BYTES = 32 << 20
_MAX_ROWS = 1 << 22
_NEEDED = ("group_id", "sample_index", "completion_text")
_SCALARS = arrow_types(
    *("group_id", "uid", "index", "epoch", "task", "sample_index", "question", "ground_truth", "advantage", "reward"),
    *("components", "outcome", "correct", "finish_reason", "min_policy_version", "attempt", "worker", "answer"),
)
_LISTS = arrow_types("token_ids", "rollout_logprobs", "policy_logprobs", "entropies", "loss_mask")
_FEATURES = ("length", "entropy", "max_gap", "k3", "repetition", "turns", "tool_calls")


class UnreadableRolloutsError(Exception):
    """A file that is no table of rollouts, or not a whole one. The message goes into a Problem."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextPart:
    """Completions in UTF-8, A-Z in lower case, each followed by a byte that UTF-8 never has:
    data[offsets[i]:offsets[i + 1] - 1] is that of positions[i]."""

    positions: NDArray[np.int32]
    offsets: NDArray[np.int64]
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutFile:
    """N completions in order of dispatch; all lists and arrays are [N]."""

    num_groups: int
    row: NDArray[np.int64]
    """Where it stands in the file."""
    group: NDArray[np.int64]
    """Number of its group in order of dispatch."""
    scalars: dict[str, list[Any]]
    """Those of the file's columns that are no lists; None where absent."""
    features: dict[str, NDArray[np.float64]]
    """Those of `_FEATURES`; NaN is absent."""
    episode_outcomes: list[str | None]
    """None for one answer to one prompt."""
    previews: list[str]
    answers: list[str | None]
    components: list[dict[str, float]]
    texts: list[TextPart] = field(default_factory=list)


def read_rollout_file(path: Path) -> RolloutFile:
    """Raises UnreadableRolloutsError."""
    try:
        with open_inside(path) as source, pyarrow.parquet.ParquetFile(source, pre_buffer=False) as file:
            return _read(file)
    except OSError as error:
        raise UnreadableRolloutsError(f"cannot be read: {error.strerror or error}") from error
    except (pyarrow.ArrowException, ValueError, TypeError, KeyError, OverflowError) as error:
        # What pyarrow raises for bytes that are no Parquet, a foreign schema or text that is no UTF-8.
        raise UnreadableRolloutsError(f"is no whole table of rollouts: {_first_line(error)}") from error


def scalar_columns(table: Any, names: dict[str, Any]) -> dict[str, Any]:
    """Columns of a pyarrow table or batch by name, in the types given; nulls for those that are missing."""
    return {
        name: table.column(name).cast(kind) if name in table.schema.names else pyarrow.nulls(table.num_rows, kind)
        for name, kind in names.items()
    }


def _read(file: Any) -> RolloutFile:
    present = set(file.schema_arrow.names)
    missing = [name for name in _NEEDED if name not in present]
    if missing:
        raise UnreadableRolloutsError(f"is no table of rollouts: it has no column {missing[0]}")
    num_rows = file.metadata.num_rows
    if num_rows > _MAX_ROWS:
        raise UnreadableRolloutsError(f"has {num_rows} rows, more than the {_MAX_ROWS} that the dashboard reads")
    table = file.read(columns=[name for name in _SCALARS if name in present], use_threads=False)
    columns = scalar_columns(table, _SCALARS)
    columns["question"] = compute.utf8_slice_codeunits(columns["question"], 0, _MAX_QUESTION_CHARS)
    columns["ground_truth"] = compute.utf8_slice_codeunits(columns["ground_truth"], 0, _MAX_QUESTION_CHARS)
    scalars = {name: column.to_pylist() for name, column in columns.items()}
    order, group, num_groups = _dispatch_order(scalars)
    position = np.empty(num_rows, dtype=np.int64)
    position[order] = np.arange(num_rows)
    scalars = {name: [values[row] for row in order] for name, values in scalars.items()}
    features = {name: np.full(num_rows, np.nan) for name in _FEATURES}
    outcomes: list[str | None] = [None] * num_rows
    previews = [""] * num_rows
    answers: list[str | None] = [_clip(answer) for answer in scalars["answer"]]
    texts = []
    for first, part in _parts(file, present):
        at = position[first : first + part.num_rows]
        episodes = read_episodes(_texts(part, "episode"))
        for name, values in _part_features(part, episodes).items():
            features[name][at] = values
        for index, episode in zip(at, episodes, strict=True):
            outcomes[index] = None if episode is None else _clip(episode.outcome)
        text = part.column("completion_text").cast(pyarrow.string())
        for index, preview in zip(at, compute.utf8_slice_codeunits(text, 0, _PREVIEW_CHARS).to_pylist(), strict=True):
            previews[index] = preview or ""
        if "answer" not in present:
            for index, completion in zip(at, text.to_pylist(), strict=True):
                found = extract_answer((completion or "")[-_ANSWER_TAIL_CHARS:])
                answers[index] = None if found is None else _clip(found.text)
        texts.append(_text_part(text, at))
    return RolloutFile(
        num_groups=num_groups,
        row=order,
        group=group,
        scalars=scalars,
        features=features,
        episode_outcomes=outcomes,
        previews=previews,
        answers=answers,
        components=_components(scalars["components"]),
        texts=texts,
    )


def _dispatch_order(scalars: dict[str, list[Any]]) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """([N] rows in order of dispatch, [N] number of the group of each of them, number of groups).

    Groups by the prompt's index, which counts prompts as they were dispatched; without one by their first row.
    """
    first: dict[str, tuple[int, int]] = {}
    for row, (group_id, index) in enumerate(zip(scalars["group_id"], scalars["index"], strict=True)):
        first.setdefault(group_id, (index or 0, row))
    number = {group_id: place for place, group_id in enumerate(sorted(first, key=first.__getitem__))}
    groups = np.fromiter((number[group_id] for group_id in scalars["group_id"]), dtype=np.int64)
    samples = np.array([sample or 0 for sample in scalars["sample_index"]], dtype=np.int64)
    order = np.lexsort((samples, groups))
    return order, groups[order], len(number)


def _parts(file: Any, present: set[str]) -> Iterator[tuple[int, Any]]:
    """(first row, batch) of the columns that are long, so many rows at a time as make about 32 MiB."""
    columns = [name for name in (*_LISTS, "completion_text", "episode") if name in present]
    metadata = file.metadata
    total = sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
    # Twice: dictionary encoding makes columns smaller in the file than in memory.
    rows = max(1, min(8192, _PART_BYTES * max(1, metadata.num_rows) // max(1, 2 * total)))
    first = 0
    for batch in file.iter_batches(batch_size=rows, columns=columns, use_threads=False):
        yield first, batch
        first += batch.num_rows


def _part_features(part: Any, episodes: Sequence[EpisodeFacts | None]) -> dict[str, NDArray[np.float64]]:
    lists = {name: _lists(part, name, kind) for name, kind in _LISTS.items()}
    tokens = lists["token_ids"]
    of_stretches = stretches(tokens, episodes)
    flags = counted(tokens, of_stretches, lists["loss_mask"])
    sampler, learner, entropies = (
        only(lists[name], flags) for name in ("rollout_logprobs", "policy_logprobs", "entropies")
    )
    max_gap, k3 = gaps(sampler, learner)
    is_sampled = of_stretches != NOT_SAMPLED
    return {
        "length": np.bincount(tokens.owner()[is_sampled], minlength=len(tokens.lengths)).astype(np.float64),
        "entropy": mean_entropy(entropies, sampler),
        "max_gap": max_gap,
        "k3": k3,
        "repetition": repetition(tokens, of_stretches),
        "turns": np.array([np.nan if one is None else len(one.turns) for one in episodes], np.float64),
        "tool_calls": np.array([np.nan if one is None else one.num_tool_calls for one in episodes], np.float64),
    }


def _texts(part: Any, name: str) -> list[str | None]:
    if name not in part.schema.names:
        return [None] * part.num_rows
    texts: list[str | None] = part.column(name).cast(pyarrow.string()).to_pylist()
    return texts


def _lists(part: Any, name: str, kind: Any) -> Lists:
    if name not in part.schema.names:
        return Lists(np.zeros(0), np.zeros(part.num_rows, dtype=np.int64))
    column = part.column(name)
    if column.type != kind:
        column = column.cast(kind)
    return Lists(numpy_of(column.flatten()), list_lengths(column))


def _text_part(text: Any, positions: NDArray[np.int64]) -> TextPart:
    lowered = compute.ascii_lower(text).cast(pyarrow.binary()).to_pylist()
    completions = [completion or b"" for completion in lowered]
    offsets = np.zeros(len(completions) + 1, dtype=np.int64)
    np.cumsum([len(completion) + 1 for completion in completions], out=offsets[1:])
    data = SEPARATOR.join([*completions, b""])
    return TextPart(positions=positions.astype(np.int32), offsets=offsets, data=data)


def _components(texts: Sequence[str | None]) -> list[dict[str, float]]:
    """Parsed; in a run without shaped rewards the same few texts come again and again."""
    parsed = {text: _parse_components(text) for text in set(texts)}
    return [parsed[text] for text in texts]


def _parse_components(text: str | None) -> dict[str, float]:
    try:
        values = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        return {}
    if not isinstance(values, dict):
        return {}
    numbers = {_stored(name): _float(value) for name, value in values.items() if isinstance(value, int | float)}
    return {name: value for name, value in numbers.items() if value is not None}


def _stored(name: str) -> str:
    """A name without lone surrogates, which JSON may have and SQLite does not hold: they are spelt out."""
    return name.encode("utf-8", "backslashreplace").decode()


def _float(value: float) -> float | None:
    """None for a whole number of hundreds of digits."""
    try:
        return float(value)
    except OverflowError:
        return None


def _clip(answer: str | None) -> str | None:
    return None if answer is None else answer.strip()[:MAX_WORD_CHARS]


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return (lines[0] if lines else type(error).__name__)[:200]
