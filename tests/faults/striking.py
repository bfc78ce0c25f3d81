"""A game whose world strikes in its second turn: itself, or the sampler that it belongs to."""

import os
import signal
from pathlib import Path

import psutil

from rollout.episodes.environment import Done, Messages, Reply
from rollout.episodes.games import GuessNumber


class StrikingGuess(GuessNumber):
    """As the game, until its folder has a file `world` or `sampler`, which is for one world alone."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def respond(self, reply: Reply) -> Messages | Done:
        """Strikes in the call, before it answers."""
        if reply.turn == 2:
            if self._takes("world"):
                os.kill(os.getpid(), signal.SIGKILL)
            if self._takes("sampler"):
                # A world's parent is the template, and the sampler started that.
                os.kill(psutil.Process(os.getppid()).ppid(), signal.SIGKILL)
        return super().respond(reply)

    def _takes(self, name: str) -> bool:
        try:
            os.remove(self.folder / name)
        except FileNotFoundError:
            return False
        return True
