"""A training step that can be given up until it moves the weights.

    hold(step) --> each rank says which pass it begins next, and waits there
    decide(step, at) --> the highest of these: every rank goes on to it and gives up there; None: all finish the step

Ranks meet in collective calls within a pass, so all must give up before the same one, and agree on it without a
collective call of their own, which would cost every pass something. A rank that is alone may also give up within the
pass before that one (`within_pass`), of which nothing would be used. `hold` and `decide` come from another thread than
the step: a rank answers while it computes.
"""

import threading

from rollout.errors import StepGivenUpError

DECISION_S = 60.0
"""How long a rank waits for the decision, once: whoever asked has given up asking then."""


class StepGate:
    """Of one rank. The thread of the step calls `begin`, `enter_pass` and `commit`; another one `hold` and `decide`."""

    def __init__(self, *, decision_s: float = DECISION_S) -> None:
        self._decision_s = decision_s
        self._changed = threading.Condition()
        self._step = -1
        self._next_pass = 0
        self._is_committed = True
        self._is_running = False
        self._held_step: int | None = None
        self._is_undecided = False
        self._give_up_at: int | None = None

    def begin(self, step: int) -> None:
        """A step begins, with pass 0; or goes on after a pause, with the next."""
        with self._changed:
            if self._step != step or self._is_committed:
                self._step, self._next_pass, self._is_committed = step, 0, False
            self._is_running = True

    def enter_pass(self) -> None:
        """Before each pass. Errors: `StepGivenUpError`, on every rank before the same pass."""
        with self._changed:
            if self._is_committed:
                return
            self._wait_for_decision()
            if self._held_step == self._step and self._next_pass == self._give_up_at:
                raise StepGivenUpError(f"step {self._step} was given up before its pass {self._next_pass}")
            self._next_pass += 1

    def within_pass(self) -> None:
        """From within a pass that meets nobody, as often as it likes. Errors: `StepGivenUpError`, where the step is to
        be given up before the next pass."""
        if self._give_up_at is None:  # nearly always, and a lock for each layer would be for nothing
            return
        with self._changed:
            is_last = self._held_step == self._step and self._next_pass == self._give_up_at
            if is_last and self._is_running and not self._is_committed:
                raise StepGivenUpError(f"step {self._step} was given up within its pass {self._next_pass - 1}")

    def commit(self) -> None:
        """Before the first optimizer step: what comes after it cannot be undone. Errors: as `enter_pass`."""
        self.enter_pass()
        with self._changed:
            self._is_committed = True

    def pause(self) -> None:
        """The step goes on later, with groups that are still sampled: passes that come now are of something else."""
        with self._changed:
            self._is_running = False

    def end(self) -> None:
        """The step is over, given up or not: passes that come now are of something else."""
        with self._changed:
            self._is_committed, self._is_running = True, False

    def hold(self, step: int) -> int | None:
        """The number of the pass that this rank begins next: it waits for `decide` there. None: too late."""
        with self._changed:
            if self._step > step or (self._step == step and self._is_committed):
                return None
            self._held_step, self._give_up_at = step, None
            self._is_undecided = True
            return self._next_pass if self._step == step else 0

    def decide(self, step: int, at: int | None) -> None:
        """Gives the step up before pass `at`; None lets it go on."""
        with self._changed:
            if self._held_step == step:
                self._give_up_at, self._is_undecided = at, False
                self._changed.notify_all()

    def _wait_for_decision(self) -> None:
        if self._held_step == self._step and not self._changed.wait_for(
            lambda: not self._is_undecided, self._decision_s
        ):
            self._is_undecided = False  # and not once more at the next pass
