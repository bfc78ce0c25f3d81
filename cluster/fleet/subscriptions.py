"""Who observes subscribes: what tells of an event knows nobody who listens, so nothing has to be made before it."""

from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

E = TypeVar("E")


class Subscribers(Generic[E]):
    """Are told of each event at once, in the order in which they subscribed."""

    def __init__(self) -> None:
        self._observers: list[Callable[[E], object]] = []

    def subscribe(self, observer: Callable[[E], object]) -> None:
        """`observer` is told of every event from now on. It must not wait."""
        self._observers.append(observer)

    def tell(self, event: E) -> None:
        """Errors: those of an observer; the ones after it are not told."""
        for observer in self._observers:
            observer(event)


class WaitedForSubscribers(Generic[E]):
    """As `Subscribers`, for what must be done before whoever tells goes on: each is waited for."""

    def __init__(self) -> None:
        self._observers: list[Callable[[E], Awaitable[object]]] = []

    def subscribe(self, observer: Callable[[E], Awaitable[object]]) -> None:
        """`observer` is told of every event from now on, and has its own deadline."""
        self._observers.append(observer)

    async def tell(self, event: E) -> None:
        """Errors: those of an observer; the ones after it are not told."""
        for observer in self._observers:
            await observer(event)
