"""Where ranks meet: a port that nobody can take in between, on one address."""

import socket
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from torch._C._distributed_c10d import TCPStore

from learner.backend.engine import Rendezvous


def test_eighty_that_start_at_once_have_a_port_each() -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: Rendezvous("127.0.0.1"), range(80)))
    assert len({meeting.address.port for meeting in made}) == 80
    for number, meeting in enumerate(made):
        address = meeting.address
        store = TCPStore(address.host, address.port, is_master=False, timeout=timedelta(seconds=10))
        store.set("who", str(number))
    for number, meeting in enumerate(made):
        address = meeting.address
        store = TCPStore(address.host, address.port, is_master=False, timeout=timedelta(seconds=10))
        assert store.get("who") == str(number).encode(), "a store of its own"


def test_its_port_was_never_free() -> None:
    """What takes every port that the system would give next cannot take this one."""
    meeting = Rendezvous("127.0.0.1")
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", meeting.address.port))


def test_it_listens_on_its_address_alone() -> None:
    meeting = Rendezvous("127.0.0.1")
    with socket.socket() as other:
        assert other.connect_ex(("127.0.0.2", meeting.address.port)) != 0
    with socket.socket() as other:
        assert other.connect_ex(("127.0.0.1", meeting.address.port)) == 0
