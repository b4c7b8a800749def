"""Whose turn it is: every client in turn, each client's own calls in their order."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class FairQueue(Generic[Item]):
    """Items by client. `pop` takes one item of each client in turn, so that one who sends much
    waits behind himself. Knows neither time nor calls."""

    def __init__(self) -> None:
        self._lines: OrderedDict[str, deque[Item]] = OrderedDict()

    def __len__(self) -> int:
        return sum(map(len, self._lines.values()))

    def push(self, client: str, item: Item) -> None:
        """Put an item at the end of its client's line."""
        self._lines.setdefault(client, deque()).append(item)

    def pop(self) -> Item:
        """The next item.

        Raises:
            LookupError: if there is none.
        """
        if not self._lines:
            raise LookupError("expected an item, the queue is empty")
        client, line = next(iter(self._lines.items()))
        item = line.popleft()
        if line:
            self._lines.move_to_end(client)
        else:
            del self._lines[client]
        return item

    def remove(self, client: str, item: Item) -> bool:
        """Take an item out of its line; False if it is not there any more."""
        line = self._lines.get(client)
        if line is None or item not in line:
            return False
        line.remove(item)
        if not line:
            del self._lines[client]
        return True

    def ahead(self, client: str) -> int:
        """How many items would be taken before a new one of this client."""
        own = len(self._lines.get(client, ()))
        others = (len(line) for name, line in self._lines.items() if name != client)
        return own + sum(min(length, own + 1) for length in others)

    def count(self, client: str, counts: Callable[[Item], bool]) -> int:
        """How many items of a client there are for which `counts` is true."""
        return sum(map(counts, self._lines.get(client, ())))

    def longest(self, counts: Callable[[Item], bool]) -> tuple[str, int]:
        """The client with the most items for which `counts` is true, and how many; ("", 0) if
        there is none."""
        lengths = ((name, sum(map(counts, line))) for name, line in self._lines.items())
        return max(lengths, key=lambda pair: pair[1], default=("", 0))

    def last(self, client: str, counts: Callable[[Item], bool]) -> Item:
        """The newest item of a client for which `counts` is true.

        Raises:
            LookupError: if there is none.
        """
        for item in reversed(self._lines.get(client, ())):
            if counts(item):
                return item
        raise LookupError(f"expected an item of {client!r}, found none")
