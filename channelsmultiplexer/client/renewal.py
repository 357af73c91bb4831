"""
Which messages of two connections at once are the same.

Sans-I/O. While a connection is renewed both the old and the new one bring what is
subscribed. Each message counts once, from whichever brings it first.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Hashable
from typing import Any

__all__ = ["Overlap"]


class Overlap:
    """
    Pairs the messages of an old connection with those of a new one.

    A message of one is a duplicate if the other has brought an equal one that isn't
    paired yet. Equal messages that are meant to be several stay as many.

    Args:
        done: Called once nothing is lost if the old connection ends: a message came
            by both, and the old one has brought nothing, since the new one was
            ready, that the new one hasn't.
    """

    def __init__(self, old: object, done: Callable[[], object]) -> None:
        self._old = old
        self._done = done
        # What only the old one has brought: before the new was ready, and since.
        self._before: collections.Counter[Any] = collections.Counter()
        self._since: collections.Counter[Any] = collections.Counter()
        # What only the new one has brought.
        self._ahead: collections.Counter[Any] = collections.Counter()
        # What is to be paired before it is done.
        self._owed = self._since
        self._is_ready = False
        # The channels for which the new one was sent something.
        self._asked: set[Hashable] = set()
        # If one of the two is no more.
        self._is_alone = False

    def ready(self) -> None:
        """
        Note that the new connection has asked for all that the old one has.
        """
        self._is_ready = True

    def part(self, left: object, done: Callable[[], object]) -> None:
        """
        Note that only one connection is left.

        Args:
            left: That one; it may be behind the other.

            done: Called, instead of the first, once it has brought what the other
                has: nothing that it brings then is a duplicate.
        """
        self._owed = self._ahead if left is self._old else self._since
        self._done = done
        self._is_ready = self._is_alone = True
        if not self._owed:
            done()

    def ask(self, connection: object, channel: Hashable) -> None:
        """
        Note that something is sent by a connection, for a channel, or for none.

        What the new one brings from then on may be the answer, and no duplicate of
        what the old one has brought, though it be equal. Messages are then tuples of
        a channel and what it brought.
        """
        if connection is self._old or channel in self._asked:
            return
        self._asked.add(channel)
        for counter in (self._before, self._since):
            for message in [m for m in counter if m[0] == channel]:
                del counter[message]
        if self._is_alone and not self._owed:
            self._done()

    def is_duplicate(self, connection: object, message: Hashable) -> bool:
        """
        Tell if what a connection brings was delivered already, by the other.
        """
        if connection is self._old:
            others = [self._ahead]
            own = self._since if self._is_ready else self._before
        else:
            others = [self._since, self._before]
            own = self._ahead
        for other in others:
            if other[message]:
                other[message] -= 1
                if not other[message]:
                    del other[message]
                if self._is_ready and not self._owed:
                    self._done()
                return True
        # There is no other that could bring it.
        if not self._is_alone:
            own[message] += 1
        return False
