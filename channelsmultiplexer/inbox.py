"""
Where the messages of one stream wait for their reader.
"""

from __future__ import annotations

import asyncio
import collections
from typing import Generic, TypeVar

from .exceptions import InboxClosed, InboxFull

__all__ = ["Inbox"]

T = TypeVar("T")


class Inbox(Generic[T]):
    """
    A bounded, closable queue with one reader.

    What happens when it is full is for those who put to choose: :meth:`put`
    waits for room, :meth:`put_nowait` refuses.

    An item larger than the limit is taken while nothing else waits: the limit
    bounds memory, it forbids nothing.

    Args:
        limit: How much may wait, in any unit; each item brings its own size.

        held: If nothing can be got before :meth:`release`.
    """

    __slots__ = (
        "_closed",
        "_getter",
        "_held",
        "_items",
        "_limit",
        "_room",
        "_taker",
        "peak",
        "size",
    )

    def __init__(self, limit: int, *, held: bool = False) -> None:
        self._limit = limit
        self._held = held
        self._closed = False
        # What waits, each item with its size, oldest first. An empty deque takes
        # more memory than all the rest, and a reader that keeps up needs none.
        self._items: collections.deque[tuple[T, int]] | None = None
        # The sum of the sizes, and the most that it ever was.
        self.size: int = 0
        self.peak: int = 0
        # The reader in get(): it is woken, and takes the item itself.
        self._getter: asyncio.Future[None] | None = None
        # The reader's future from get_soon(): the item is put in it.
        self._taker: asyncio.Future[T] | None = None
        # Where those in put() wait. Few inboxes are ever full, so it is made late.
        self._room: asyncio.Event | None = None

    # Those who put

    def put_nowait(self, item: T, size: int = 1) -> None:
        """
        Add an item.

        Raises:
            InboxFull: If it doesn't fit.
            InboxClosed: If the inbox is closed.
        """
        if self._closed:
            raise InboxClosed
        if self._items and self.size + size > self._limit:
            raise InboxFull(self.size, self._limit)
        taker = self._taker
        # While one waits for its item, nothing waits to be taken.
        if taker is not None and not self._held and not taker.done():
            self._taker = None
            taker.set_result(item)
        else:
            self._append(item, size)

    async def put(self, item: T, size: int = 1) -> None:
        """
        Add an item, once there is room for it.

        Canceling :meth:`put` before it returns adds nothing.

        Raises:
            InboxClosed: If the inbox is closed, also while this waits.
        """
        while True:
            try:
                return self.put_nowait(item, size)
            except InboxFull:
                if self._room is None:
                    self._room = asyncio.Event()
                self._room.clear()
                await self._room.wait()

    def close(self, last: T) -> None:
        """
        Add the last item there will be, whatever the limit.

        The reader must know it for the last, and not ask for more: it would wait
        for ever.
        """
        assert not self._closed, "an inbox is closed once"
        self._append(last, 0)
        self._closed = True
        self._make_room()

    # The reader

    async def get(self) -> T:
        """
        Return the oldest item, once there is one.

        Canceling :meth:`get` loses nothing.

        Raises:
            RuntimeError: If another task waits in it.
        """
        while self._held or not self._items:
            if self._getter is not None and not self._getter.done():
                raise RuntimeError("another task is reading this already")
            self._getter = asyncio.get_running_loop().create_future()
            await self._getter
        return self._take()

    def get_soon(self) -> asyncio.Future[T]:
        """
        Return a future for the oldest item, done already if there is one.

        It saves the task that :func:`asyncio.ensure_future` makes of a coroutine.
        It is for a reader that never gives up: an item in a future that nobody
        reads is lost.
        """
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        if self._items and not self._held:
            future.set_result(self._take())
        else:
            self._taker = future
        return future

    # Those who own the inbox

    def release(self) -> None:
        """
        Let the reader have what was held.
        """
        self._held = False
        if self._items:
            self._wake()

    def abandon(self) -> None:
        """
        Drop all that waits and take no more: the reader is gone.
        """
        self._closed = True
        self.clear()

    def clear(self) -> None:
        """
        Drop all that waits.
        """
        self._items = None
        self.size = 0
        self._make_room()

    @property
    def waiting(self) -> int:
        """
        How many items wait. Any thread may ask.
        """
        items = self._items
        return len(items) if items else 0

    # Private

    def _append(self, item: T, size: int) -> None:
        if self._items is None:
            self._items = collections.deque()
        self._items.append((item, size))
        self.size += size
        if self.size > self.peak:
            self.peak = self.size
        if not self._held:
            self._wake()

    def _wake(self) -> None:
        taker, self._taker = self._taker, None
        if taker is not None and not taker.done():
            taker.set_result(self._take())
        elif self._getter is not None and not self._getter.done():
            self._getter.set_result(None)

    def _take(self) -> T:
        assert self._items, "there is something to take"
        item, size = self._items.popleft()
        self.size -= size
        if self._room is not None:
            self._make_room()
        return item

    def _make_room(self) -> None:
        if self._room is not None:
            self._room.set()
