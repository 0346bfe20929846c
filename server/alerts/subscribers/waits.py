"""Waits: the subscribers that wait for the growth of a tail."""

import asyncio

from runtime.turns import Pieces


class Waits:
    """The subscribers of one tail that wait for its growth."""

    def __init__(self, pieces: Pieces) -> None:
        """pieces: of the organization's work for its subscribers; without them, all would send in the same pass."""
        self._pieces = pieces
        self._waiting: dict[int, asyncio.Future[None]] = {}  # by number of the subscriber

    def begin(self, subscriber: int) -> asyncio.Future[None]:
        """A wait that growth ends, with a turn for one piece. subscriber: its number; it has one wait at a time."""
        wait = self._waiting[subscriber] = asyncio.get_running_loop().create_future()
        return wait

    def forget(self, subscriber: int) -> None:
        """Removes the wait of a subscriber, if it has one."""
        self._waiting.pop(subscriber, None)

    def end(self) -> None:
        """Ends all waits, in the order in which they began."""
        self._pieces.grant_in_turn(self._waiting.values())
        self._waiting.clear()
