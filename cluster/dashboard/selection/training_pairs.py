"""Completions as data for fine-tuning: the records that TRL's SFTTrainer and DPOTrainer read.

sft       {"prompt": [turns], "completion": [turn]}         each selected completion; of an episode all of its turns
dpo       {"prompt": [turns], "chosen": [turn], "rejected": [turn]}   of each group the best and the worst reward
-text     the same with strings in place of turns: the prompt exactly as the model was given it
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from pydantic import TypeAdapter, ValidationError

from cluster.dashboard.files.sampled_tokens import read_episodes
from cluster.dashboard.index.rollout_queries import PlacedRow
from cluster.dashboard.selection.completions import SelectionError
from rollout.config import AnyTask, TaskConfig, task_name, tasks_of
from rollout.prompts.chat import messages_for
from rollout.prompts.rows import TaskRow

Shape = Literal["rollouts", "sft", "dpo", "sft-text", "dpo-text"]
SHAPES: tuple[Shape, ...] = get_args(Shape)
PAIR_COLUMNS = (
    *("phase", "task", "step", "group_id", "sample_index", "question", "prompt_text", "completion_text", "episode"),
)
"""What is read of a completion to make a record of it."""

_TURN = "turns"
_TEXT = "string"


def pair_columns(shape: Shape) -> dict[str, str]:
    """Name -> kind of the records of a shape that is for training."""
    kind = _TEXT if shape.endswith("-text") else _TURN
    names = ("prompt", "completion") if shape.startswith("sft") else ("prompt", "chosen", "rejected")
    return dict.fromkeys(names, kind)


def best_and_worst(rows: Sequence[PlacedRow]) -> list[PlacedRow]:
    """Of each group the first of those with the highest reward, then the first of those with the lowest; nothing of a
    group whose scored completions all have the same reward, for it says not which is better."""
    groups: dict[str, list[PlacedRow]] = {}
    for row in rows:
        if row.row.reward is not None:
            groups.setdefault(row.row.group_id, []).append(row)
    chosen = []
    for scored in groups.values():
        best, worst = max(scored, key=_reward), min(scored, key=_reward)
        if _reward(best) > _reward(worst):
            chosen += [best, worst]
    return chosen


@dataclass(frozen=True, slots=True, kw_only=True)
class Turns:
    """Says with which turns a question was asked, from the configuration of its run."""

    tasks: Mapping[str, AnyTask]
    """Phase -> the configuration of its task, or tasks."""

    def of(self, values: Mapping[str, Any]) -> list[dict[str, str]]:
        """The turns of a completion's prompt. Raises SelectionError where its text does not hold them."""
        row = TaskRow(question=values["question"] or "", ground_truth=None, source="")
        turns = messages_for(row, _task_of(self.tasks[values["phase"]], values["task"]))
        text = values["prompt_text"] or ""
        # A template may take blanks off a turn's ends, and nothing else. A conversation of several turns is one text in
        # the table: its roles cannot be told any more, and the text is not in the prompt as it stands.
        if not all(turn.content.strip() in text for turn in turns):
            raise SelectionError(
                f"the turns of group {values['group_id']} at step {values['step']} cannot be told from its question, "
                "which was a conversation or was asked by another configuration; the shapes sft-text and dpo-text "
                "have the prompt as one text"
            )
        return [{"role": turn.role, "content": turn.content} for turn in turns]


def _task_of(tasks: AnyTask, name: str) -> TaskConfig:
    """The task of a mix that has this name. A completion of a run with one task is of that one."""
    of_run = tasks_of(tasks)
    return next((task for task in of_run if task_name(task) == name), of_run[0])


def turns_of(config: Mapping[str, Any] | None) -> Turns:
    """From a run's configuration. Raises SelectionError where it has no task that is understood."""
    config = config or {}
    adapter: TypeAdapter[Any] = TypeAdapter(AnyTask)
    try:
        task = adapter.validate_python(config.get("task"))
        other = config.get("eval_task")
        return Turns(tasks={"train": task, "eval": task if other is None else adapter.validate_python(other)})
    except ValidationError as error:
        raise SelectionError(
            "the run's config.yaml has no task that this version understands, so that the turns of its prompts are "
            "not known; the shapes sft-text and dpo-text need none"
        ) from error


def sft_records(parts: Iterator[list[tuple[PlacedRow, dict[str, Any]]]], turns: Turns | None) -> Iterator[Any]:
    """One for each completion; as turns, or as strings where there are none."""
    for part in parts:
        for _, values in part:
            yield {"prompt": _prompt(values, turns), "completion": _completion(values, turns)}


def dpo_records(parts: Iterator[list[tuple[PlacedRow, dict[str, Any]]]], turns: Turns | None) -> Iterator[Any]:
    """One for each group, of completions that `best_and_worst` chose. Raises SelectionError."""
    waiting: dict[tuple[str, int, str], tuple[PlacedRow, dict[str, Any]]] = {}
    for part in parts:
        for placed, values in part:
            key = (placed.row.phase, placed.row.step, placed.row.group_id)
            if key not in waiting:
                waiting[key] = (placed, values)
                continue
            pair = sorted((waiting.pop(key), (placed, values)), key=lambda one: _reward(one[0]), reverse=True)
            chosen, rejected = (_completion(one, turns) for _, one in pair)
            yield {"prompt": _prompt(values, turns), "chosen": chosen, "rejected": rejected}
    assert not waiting, "each group that was chosen has two completions"


def _reward(placed: PlacedRow) -> float:
    assert placed.row.reward is not None
    return placed.row.reward


def _prompt(values: Mapping[str, Any], turns: Turns | None) -> Any:
    return (values["prompt_text"] or "") if turns is None else turns.of(values)


def _completion(values: Mapping[str, Any], turns: Turns | None) -> Any:
    text = values["completion_text"] or ""
    if turns is None:
        return text
    (episode,) = read_episodes([values["episode"]])
    if episode is None:
        return [{"role": "assistant", "content": text}]
    if len(episode.spoken) < len(episode.turns):
        raise SelectionError(
            f"the words of the episode of group {values['group_id']} at step {values['step']} were not noted turn by "
            "turn; the shapes sft-text and dpo-text have them as one text"
        )
    said = []
    for turn in episode.spoken:
        said.append({"role": "assistant", "content": turn.text})
        said += [{"role": message.role, "content": message.text} for message in turn.heard]
    return said
