"""
Callbacks for a Redis subscription that note what they are told.
"""

from __future__ import annotations

import asyncio

__all__ = ["TIMEOUT", "Recorder", "guarded"]

# Seconds that anything in the tests may take.
TIMEOUT = 5


async def guarded(awaitable):
    """
    Await something that must not take long.
    """
    return await asyncio.wait_for(awaitable, TIMEOUT)


class Recorder:
    """
    Notes what callbacks are told, in order.
    """

    def __init__(self) -> None:
        self.events: asyncio.Queue[tuple[object, ...]] = asyncio.Queue()

    def message(self, channel, data):
        self.events.put_nowait((channel, data))

    def disconnect(self, error):
        self.events.put_nowait(("disconnect", error))

    def activation(self, name):
        self.events.put_nowait(("active", name))

    def gap(self, gap):
        self.events.put_nowait(("gap", gap.dropped))

    @property
    def callbacks(self):
        """
        Return the three callbacks, in their order.
        """
        return self.message, self.disconnect, self.activation

    async def next(self):
        """
        Return what they were told next.
        """
        return await guarded(self.events.get())

    async def take(self, count):
        """
        Return what they were told in the next calls.
        """
        return [await self.next() for _ in range(count)]
