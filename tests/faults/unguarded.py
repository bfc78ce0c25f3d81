"""A pytest plugin that switches one guard off: `SHOAL_GUARD_OFF=canary python -m pytest -p tests.faults.unguarded`.

Before anything else is imported, the module of the guard is loaded with one piece of its source replaced. A piece that
is not there exactly once is an error: a guard that was rewritten must be found again, or its test would test nothing.
"""

import importlib.util
import os
import sys
from dataclasses import dataclass
from pathlib import Path

VARIABLE = "SHOAL_GUARD_OFF"


@dataclass(frozen=True, slots=True, kw_only=True)
class Switch:
    """A guard, and how it looks when it is off."""

    module: str
    guarded: str
    """The piece of the module's source that guards."""
    unguarded: str


SWITCHES = {
    "fencing": Switch(
        module="cluster.groups.ledger",
        guarded="if self._open.get(group_id) != (GroupState.LEASED, attempt):",
        unguarded="self._open[group_id] = (GroupState.LEASED, attempt)\n        if False:",
    ),
    "digest of a tensor": Switch(module="rollout.transfer.manifest", guarded="if got != sent:", unguarded="if False:"),
    "digest of the whole": Switch(
        module="rollout.transfer.manifest", guarded="if got != sent_digest:", unguarded="if False:"
    ),
    "canary": Switch(
        module="cluster.weights.canary",
        guarded="return bool(np.max(sizes_N) <= self.largest and np.mean(sizes_N) <= self.mean)",
        unguarded="return True",
    ),
    "canary of what was kept": Switch(module="cluster.weights.weight_sync", guarded="if share:", unguarded="if False:"),
    "missing weights": Switch(
        module="learner.model.loading", guarded='if missing := found["missing_keys"]:', unguarded="if missing := ():"
    ),
    "conservation": Switch(
        module="cluster.groups.ledger",
        guarded="if self._dispatched != self._trained + rejected + self.in_flight:",
        unguarded="if False:",
    ),
    "conservation after a step": Switch(
        module="cluster.loop.controller", guarded="self._ledger.check()", unguarded="pass"
    ),
    "manifest check": Switch(
        module="learner.saving.files", guarded="listed = _read_manifest(directory)", unguarded="return"
    ),
    "digest of a file": Switch(
        module="learner.saving.files",
        guarded='if not is_hashed and file_sha256(directory / name) != entry["sha256"]:',
        unguarded="if False:",
    ),
    "finite gradient": Switch(
        module="learner.backend.engine", guarded="if not math.isfinite(self.grad_norm):", unguarded="if False:"
    ),
    "finite loss": Switch(
        module="learner.backend.engine",
        guarded="poison = torch.where(torch.isfinite(loss.detach()), 1.0, math.nan)",
        unguarded="poison = 1.0",
    ),
    "finite log-probability": Switch(
        module="rollout.worker",
        guarded="loss_mask=finite_T if",
        unguarded="loss_mask=np.ones_like(finite_T) if",
    ),
    "reward deadline": Switch(
        module="reward.children.pool",
        guarded="deadline_s = time.monotonic() + timeout_s",
        unguarded="deadline_s = time.monotonic() + 1e6",
    ),
    "cursor after a step": Switch(
        module="cluster.loop.controller",
        guarded="ledger=self._ledger.state(), stream=stream.state()",
        unguarded="ledger=self._ledger.state()",
    ),
    "cursor when sampling ahead": Switch(
        module="cluster.loop.boundary",
        guarded="            stream=self._parts.stream.state(),\n            ledger=",
        unguarded="            ledger=",
    ),
    "cursor read back": Switch(
        module="rollout.prompts.stream",
        guarded="weights=weights, curriculum=curriculum, state=state)",
        unguarded="weights=weights, curriculum=curriculum)",
    ),
}


def load_without(switch: Switch) -> None:
    """Puts the module, with its guard off, where everybody who imports it finds it."""
    assert switch.module not in sys.modules, f"{switch.module} was imported before its guard could be switched off"
    spec = importlib.util.find_spec(switch.module)
    assert spec is not None, switch.module
    assert spec.origin is not None, switch.module
    source = Path(spec.origin).read_text(encoding="utf-8")
    found = source.count(switch.guarded)
    assert found == 1, f"{switch.guarded!r} is {found} times in {spec.origin}; say here how the guard looks now"
    module = importlib.util.module_from_spec(spec)
    sys.modules[switch.module] = module
    package, _, name = switch.module.rpartition(".")
    setattr(sys.modules[package], name, module)
    exec(compile(source.replace(switch.guarded, switch.unguarded), spec.origin, "exec"), module.__dict__)


if os.environ.get(VARIABLE):
    load_without(SWITCHES[os.environ[VARIABLE]])
