"""What can go wrong between processes. All picklable, all one sentence."""

from rollout.errors import ShoalError


class StageTimeoutError(ShoalError):
    """A wait passed its deadline."""

    def __init__(self, stage: str, actor: str, item: str, deadline_s: float) -> None:
        super().__init__(stage, actor, item, deadline_s)
        self.stage = stage
        self.actor = actor
        self.item = item
        self.deadline_s = deadline_s

    def __str__(self) -> str:
        return (
            f"{self.stage}: {self.actor} did not finish {self.item} within {self.deadline_s:g} s; raise the stage's "
            "deadline if the work is really that long"
        )


class ActorFailedError(ShoalError):
    """An actor died, or raised what it should not have."""

    def __init__(self, stage: str, actor: str, item: str, cause: str, died: bool = False) -> None:
        super().__init__(stage, actor, item, cause, died)
        self.stage = stage
        self.actor = actor
        self.item = item
        self.cause = cause
        self.died = died
        """Whether its process is gone, as opposed to one call that failed."""

    def __str__(self) -> str:
        return f"{self.stage}: {self.actor} failed on {self.item}: {self.cause}"


class ObjectLostError(ShoalError):
    """Something in the object store is gone with the process or node that had it."""


class GroupsLostError(ShoalError):
    """The completions of groups are gone: they have to be sampled again."""

    def __init__(self, group_ids: tuple[str, ...]) -> None:
        super().__init__(group_ids)
        self.group_ids = group_ids

    def __str__(self) -> str:
        return f"the completions of {', '.join(self.group_ids)} are gone with the process or node that had them"


class ClusterError(ShoalError):
    """Ray could not be started or joined, or has not what the run asks for."""


class LedgerError(ShoalError):
    """The account of groups does not balance: something was lost or came twice."""


class DivergenceError(ShoalError):
    """Loss or gradients were not finite for too many steps in a row."""


class RewardFailureError(ShoalError):
    """Groups cannot be scored, so that there is nothing to train on."""


class TeacherFailureError(ShoalError):
    """The server of the teacher does not score what is sampled, so that there is nothing to train on."""


class StallError(ShoalError):
    """Nothing was scored or trained for too long, and the configuration says that this ends the run."""


class RestartsExhaustedError(ShoalError):
    """An actor failed again and the budget of restarts is used up."""

    def __init__(self, actor: str, max_restarts: int, cause: str = "") -> None:
        super().__init__(actor, max_restarts, cause)
        self.actor = actor
        self.max_restarts = max_restarts
        self.cause = cause

    def __str__(self) -> str:
        cause = f" ({self.cause})" if self.cause else ""
        return (
            f"{self.actor} failed{cause} and the run has used up its {self.max_restarts} restarts "
            "(recovery.max_restarts); mend what makes actors fail, then resume the run"
        )


class NeverWorkedError(ShoalError):
    """An engine failed again as it did before, in a run whose engines have done nothing yet."""

    def __init__(self, actor: str, cause: str) -> None:
        super().__init__(actor, cause)
        self.actor = actor
        self.cause = cause

    def __str__(self) -> str:
        return (
            f"{self.actor} has never worked: it failed, was restarted, and failed in the same way ({self.cause}); no "
            "further restart would mend that, so the run ends here"
        )


class UnsavedError(ShoalError):
    """The run ended without a checkpoint of where it ended."""


class ResumeError(ShoalError):
    """A run that cannot be resumed as asked."""


class StoppedError(ShoalError):
    """The run was asked to stop by a signal; its checkpoint is written."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message, exit_code)
        self.message = message
        self.exit_code = exit_code

    def __str__(self) -> str:
        return self.message
