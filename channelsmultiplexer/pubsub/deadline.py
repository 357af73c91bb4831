"""
Time limits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

__all__ = ["wait_for"]

T = TypeVar("T")


async def wait_for(awaitable: Awaitable[T], timeout: float | None) -> T:
    """
    Return what an awaitable returns, or raise what it raises, in time.

    This is what :func:`asyncio.wait_for` is from Python 3.12 on. Before, that
    swallows a cancellation if the awaitable ends in the same turn
    (python/cpython#86296), and a task that goes on until it is canceled never ends.

    Canceling it cancels the awaitable, and waits for its end.

    Raises:
        asyncio.TimeoutError: After *timeout* seconds, when the awaitable has ended.
    """
    task = asyncio.ensure_future(awaitable)
    try:
        await asyncio.wait({task}, timeout=timeout)
        is_late = not task.done()
    finally:
        task.cancel()
        await asyncio.wait({task})
        # If we are canceled, nobody else has it.
        if not task.cancelled():
            task.exception()
    if is_late:
        raise asyncio.TimeoutError
    return task.result()
