"""The small files of one run together: read again when they change, kept in memory."""

from collections.abc import Sequence
from pathlib import Path

from cluster.dashboard.files.metric_log import MetricLog
from cluster.dashboard.files.small_files import WatchedFile, pieces_of, read_checkpoints
from cluster.dashboard.records import Checkpoint, Problem
from cluster.run_files import CHECKPOINTS, CONFIG, SUMMARY, VOCABULARY, log_name


class FileSet:
    """Used by the thread that refreshes alone; what it found is replaced whole and read by any."""

    def __init__(self, run: Path) -> None:
        self.config = WatchedFile(run / CONFIG, required=True)
        self.summary = WatchedFile(run / SUMMARY)
        self.metrics = MetricLog(run / log_name("metrics"))
        self.evaluations = MetricLog(run / log_name("evaluations"))
        self.pieces: Sequence[str] | None = None
        """Token id -> piece; None where the run has none."""
        self.checkpoints: tuple[Checkpoint, ...] = ()
        self.unfinished: tuple[Problem, ...] = ()
        """What is wrong with the other checkpoints."""
        self._vocabulary = WatchedFile(run / VOCABULARY, lists=("pieces",))
        self._checkpoints_path = run / CHECKPOINTS

    def refresh(self) -> set[str]:
        """Reads what is new; the SOURCES that changed."""
        named = {"config": self.config, "summary": self.summary, "vocabulary": self._vocabulary}
        changed = {name for name, file in named.items() if file.refresh()}
        if "vocabulary" in changed:
            self.pieces = pieces_of(self._vocabulary.value)
        changed |= {"metrics"} if self.metrics.refresh() else set()
        changed |= {"evaluations"} if self.evaluations.refresh() else set()
        checkpoints = read_checkpoints(self._checkpoints_path)
        if checkpoints != (self.checkpoints, self.unfinished):
            self.checkpoints, self.unfinished = checkpoints
            changed.add(CHECKPOINTS)
        return changed

    def problems(self) -> list[Problem]:
        """What is wrong with the files as such, not with their lines."""
        files = (self.config, self.summary, self._vocabulary)
        return [file.problem for file in files if file.problem is not None]

    def line_problems(self) -> list[Problem]:
        """Lines of the two logs of metrics that are none."""
        return [*self.metrics.problems(), *self.evaluations.problems()]
