"""The event log's twin in memory, for searches that are simulated: the same facts once, and nothing on disk."""

from tracking.events import Event
from tracking.log import identity_of


class MemoryLog:
    """As `tracking.log.EventLog`; it is gone with its process."""

    def __init__(self) -> None:
        self.warnings: tuple[str, ...] = ()
        self._events: list[Event] = []
        self._known: set[tuple[object, ...]] = set()

    def append(self, event: Event) -> bool:
        """Take a fact in. False: it was there already."""
        identity = identity_of(event)
        if identity is not None:
            if identity in self._known:
                return False
            self._known.add(identity)
        self._events.append(event)
        return True

    def events(self) -> tuple[Event, ...]:
        """Every fact so far, in order."""
        return tuple(self._events)
