"""
When what came is read: in the event loop's next turn, or a few turns later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

__all__ = ["Dispatcher", "Reader", "current_task"]

# Turns of the event loop for which those that are ready are put off while Redis sends
# faster than we read. Each reads up to 64 kB. To wake a task costs as much as all else
# that is done for four messages.
TURNS = 7


class Reader(Protocol):
    """
    What the dispatcher knows of a subscription.
    """

    def read(self) -> None:
        """Bring what waits to the user, or the user to what waits."""

    def wake(self) -> None:
        """Have :meth:`read` called soon."""


class Dispatcher:
    """
    Has what came read, in the event loop's next turn: by callbacks, or by iterators.

    Args:
        is_more_there: If Redis has sent more than was read. Then it is read first, a
            few times, so that those that are ready have more to read in one go.
    """

    def __init__(self, is_more_there: Callable[[], bool]) -> None:
        self._is_more_there = is_more_there
        # How often those that are ready were put off.
        self._put_off = 0
        # Those for whom something waits that nobody reads. schedule() is called
        # before the first is added.
        self.ready: list[Reader] = []
        # The tasks of those whose callback has to be awaited.
        self._tasks: set[asyncio.Task[None]] = set()

    def schedule(self) -> None:
        """
        Let those that are ready read, soon.
        """
        asyncio.get_running_loop().call_soon(self._run)

    def own(self, task: asyncio.Task[None]) -> None:
        """
        See to the end of a task that awaits a callback.
        """
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        """
        Cancel all callbacks, save the one that asks for it.
        """
        for task in self._tasks:
            if task is not current_task():
                task.cancel()

    async def aclose(self) -> None:
        """
        Cancel all callbacks, and await their end.
        """
        self.close()
        others = self._tasks - {current_task()}
        await asyncio.gather(*others, return_exceptions=True)

    def _run(self) -> None:
        if self._put_off < TURNS and self._is_more_there():
            self._put_off += 1
            self.schedule()
            return
        self._put_off = 0
        ready = iter(self.ready)
        self.ready = []
        try:
            for subscription in ready:
                subscription.read()
        finally:
            # KeyboardInterrupt: those who are left are not to suffer from it.
            for subscription in ready:
                subscription.wake()


def current_task() -> asyncio.Task[Any] | None:
    """
    Return the running task, if there is one.
    """
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None
