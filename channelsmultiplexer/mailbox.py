"""
Where the messages of one subscription wait for their reader.

A mailbox is no :class:`.Inbox`: it counts messages where that adds up their bytes,
drops by a policy where that refuses, and its writers serve many others too.
"""

from __future__ import annotations

import asyncio
import collections
import sys
from typing import Generic, Literal, TypeAlias, TypeVar

from .exceptions import InboxClosed, InboxFull

__all__ = ["Mailbox", "Overflow"]

T = TypeVar("T")

# What happens to a message that finds its mailbox full.
Overflow: TypeAlias = Literal["drop_oldest", "drop_newest", "latest", "error", "block"]
OVERFLOWS: tuple[Overflow, ...] = (
    "drop_oldest",
    "drop_newest",
    "latest",
    "error",
    "block",
)


class Mailbox(Generic[T]):
    """
    A bounded, closable queue with one reader, for writers who serve many.

    It counts items, not their sizes, and has a policy for when it is full.
    ``items`` and ``getter`` are public because a writer in a hurry appends and wakes
    without a call::

        mailbox.received += 1
        mailbox.items.append(item)
        if mailbox.getter is not None:
            mailbox.wake()

    Args:
        limit: How many items may wait; 0 for no limit.

        overflow: ``"drop_oldest"`` and ``"drop_newest"`` lose an item, ``"latest"``
            keeps the newest and no other, ``"error"`` closes the mailbox with
            :exc:`.InboxFull`, ``"block"`` makes the writer wait, and with it every
            other reader that the writer serves.
    """

    __slots__ = (
        "__weakref__",
        "_ending",
        "closed",
        "dropped",
        "getter",
        "items",
        "limit",
        "overflow",
        "received",
        "room",
        "writers",
    )

    def __init__(self, limit: int = 0, overflow: Overflow = "drop_oldest") -> None:
        if overflow not in OVERFLOWS:
            expected = ", ".join(OVERFLOWS)
            raise ValueError(f"expected one of {expected}, got {overflow!r}")
        if limit < 0:
            raise ValueError(f"expected a limit of 0 or more, got {limit}")
        self.limit: int = 1 if overflow == "latest" else limit or sys.maxsize
        self.overflow = overflow
        # What waits, oldest first.
        self.items: collections.deque[T] = collections.deque()
        # How many items were ever put; those not dropped and not waiting were got.
        self.received: int = 0
        self.dropped: int = 0
        self.closed: bool = False
        # The reader, if it waits.
        self.getter: asyncio.Future[None] | None = None
        # What the reader gets after the last item.
        self._ending: BaseException | None = None
        # Where writers wait, and how many do.
        self.room: asyncio.Future[None] | None = None
        self.writers: int = 0

    # The writer

    def put_nowait(self, item: T) -> bool:
        """
        Add an item, by the policy if there is no room.

        Returns:
            If nothing was lost.

        Raises:
            InboxFull: If the policy is ``"block"`` and there is no room.
        """
        lost = 0
        if not self.closed and len(self.items) >= self.limit:
            if self.overflow == "block":
                raise InboxFull(len(self.items), self.limit)
            if self.overflow == "error":
                self.close(InboxFull(len(self.items), self.limit))
            elif self.overflow != "drop_newest":
                self.items.popleft()
            lost = 1
        if self.closed or (lost and self.overflow == "drop_newest"):
            self.received += 1
            lost = 1
        else:
            self._append(item)
        self.dropped += lost
        return not lost

    async def put(self, item: T, hurry: asyncio.Future[None] | None = None) -> bool:
        """
        Add an item, once a reader that is only late has had its turn.

        One burst of the network can bring more than the limit before any reader
        runs, so this lets the event loop turn once before the policy applies.
        Canceling it adds nothing.

        Args:
            hurry: Once that is done it waits for no room, and adds the item whatever
                the limit.

        Returns:
            If nothing was lost.
        """
        if len(self.items) >= self.limit and not self.closed:
            await asyncio.sleep(0)
        while self.overflow == "block" and len(self.items) >= self.limit:
            if self.closed:
                break
            if hurry is not None and hurry.done():
                self._append(item)
                return True
            if self.room is None:
                self.room = asyncio.get_running_loop().create_future()
            waiting = {self.room, hurry} if hurry is not None else {self.room}
            self.writers += 1
            try:
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            finally:
                self.writers -= 1
        return self.put_nowait(item)

    def wake(self) -> None:
        """
        Tell the reader, if it waits, to look again.
        """
        getter, self.getter = self.getter, None
        if getter is not None and not getter.done():
            getter.set_result(None)

    def close(self, ending: BaseException | None = None) -> None:
        """
        Let nothing more in; the reader gets what waits, and then *ending*.

        Args:
            ending: :exc:`.InboxClosed` if there is none.
        """
        if not self.closed:
            self.closed = True
            # Full, for a writer that asks for nothing but that.
            self.limit = 0
            self._ending = ending
            self.wake()
            self.made_room()

    # The reader

    def arrival(self) -> asyncio.Future[None]:
        """
        Return what the reader awaits where there is no item. Then it looks again.

        Canceling it loses nothing.

        Raises:
            InboxClosed: If there never will be one: or what :meth:`close` was given.
            RuntimeError: If another reader waits.
        """
        if self.closed:
            # As new: each raise adds to what it carries of the one before.
            raise (self._ending or InboxClosed()).with_traceback(None)
        if self.getter is not None and not self.getter.done():
            raise RuntimeError("another task is reading this already")
        # With the loop's create_future() a wait takes a tenth longer.
        getter: asyncio.Future[None] = asyncio.Future()
        self.getter = getter
        return getter

    async def wait(self, timeout: float | None = None) -> None:
        """
        Return once there is an item.

        Canceling it loses nothing. Raises what :meth:`arrival` does, too.

        Raises:
            TimeoutError: After *timeout* seconds.
        """
        loop = asyncio.get_running_loop()
        until = None if timeout is None else loop.time() + timeout
        # Whoever came between the waking and this may have taken what came.
        while not self.items:
            getter = self.arrival()
            # No asyncio.wait_for(): before Python 3.12 it can swallow a cancellation.
            timer = until is not None and loop.call_at(until, self.wake)
            try:
                await getter
            finally:
                if timer:
                    timer.cancel()
            is_late = until is not None and loop.time() >= until
            if is_late and not self.items and not self.closed:
                raise TimeoutError(f"nothing came in {timeout} s")

    async def get(self, timeout: float | None = None) -> T:
        """
        Return the oldest item, once there is one.

        Canceling it loses nothing. Raises what :meth:`wait` does.
        """
        await self.wait(timeout)
        item = self.items.popleft()
        if self.room is not None:
            self.made_room()
        return item

    def made_room(self) -> None:
        """
        Tell the writers that wait to look again.
        """
        if self.room is not None:
            if not self.room.done():
                self.room.set_result(None)
            self.room = None

    @property
    def waiting(self) -> int:
        """
        How many items wait, those included that writers wait with.
        """
        return len(self.items) + self.writers

    def discard(self) -> None:
        """
        Drop all that waits, and count it.
        """
        self.dropped += len(self.items)
        self.items.clear()
        self.made_room()

    # Private

    def _append(self, item: T) -> None:
        self.received += 1
        self.items.append(item)
        if self.getter is not None:
            self.wake()
