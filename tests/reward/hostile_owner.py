"""Who judges hostile programs, with everything that they would like to have."""

import glob
import os
import secrets
import socket
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.reward.hostile_programs import ASSERT, CALL, SCRIPT


def adding(*pairs: tuple[str, str]) -> dict[str, Any]:
    return {"tests": [{"input": given, "output": wanted} for given, wanted in pairs]}


class Owner:
    """What a hostile program would like to reach: a secret in every place that its judge has."""

    def __init__(self, folder: Path) -> None:
        self.secret = f"secret-{secrets.token_hex(16)}"
        self.mark = f"shoal-mark-{secrets.token_hex(8)}"
        self.folder = folder
        for name in ("home", "run"):
            (folder / name).mkdir()
            (folder / name / "secret").write_text(self.secret)
        self.num_connections = 0
        self.listeners = [socket.create_server(("127.0.0.1", 0)), socket.socket(socket.AF_UNIX)]
        self.port = self.listeners[0].getsockname()[1]
        self.listeners[1].bind(f"\0shoal-{self.port}")
        self.listeners[1].listen()
        for listener in self.listeners:
            threading.Thread(target=self._give_away, args=(listener,), daemon=True).start()

    def _give_away(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                peer, _ = listener.accept()
                self.num_connections += 1
                peer.sendall(self.secret.encode())
                peer.close()

    def source(self, template: str) -> str:
        places = {"HOME": str(self.folder / "home"), "RUN": str(self.folder / "run"), "PORT": str(self.port)}
        for word, value in {**places, "OWNER": str(os.getpid()), "MARK": self.mark}.items():
            template = template.replace(word, value)
        return template

    def row(self, kind: str) -> dict[str, Any]:
        if kind == SCRIPT:
            return adding(("", self.secret + "\n"))
        if kind == CALL:
            return {"entry_point": "secret", "tests": [{"input": [], "output": self.secret}]}
        assert kind == ASSERT
        return {"tests": [f"assert secret() == {self.secret!r}", "assert all([secret()[0] == 's'])"]}

    def marks(self) -> list[str]:
        folders = ["/", "/tmp", "/dev/shm", "/var/tmp", "/usr", "/usr/lib", "/dev", "/etc", ".", sys.prefix]
        folders += [str(Path(os.__file__).parent), *(str(self.folder / name) for name in ("home", "run"))]
        return [path for folder in folders for path in glob.glob(f"{glob.escape(folder)}/*{self.mark}*")]
