"""
What fails a test that would hang, or that leaves something.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat

__all__ = ["blocked", "open_sockets", "soon"]

# Far longer than anything here takes, on any machine.
PATIENCE = 5


async def soon(awaitable):
    """
    Return what comes of waiting for something that is not long in coming.
    """
    return await asyncio.wait_for(awaitable, PATIENCE)


async def blocked(coroutine):
    """
    Return the task of a coroutine that has run as far as it can, and waits.
    """
    task = asyncio.ensure_future(coroutine)
    # A task starts on the first turn of the event loop; what it wakes runs on the
    # next, and what that wakes on the one after.
    for _ in range(3):
        await asyncio.sleep(0)
    assert not task.done(), "expected it to wait"
    return task


def open_sockets():
    """
    Return what identifies each socket that this process has open.
    """
    found = set()
    for name in os.listdir("/dev/fd"):
        # The directory itself was open, and is not any more.
        with contextlib.suppress(OSError):
            status = os.fstat(int(name))
            if stat.S_ISSOCK(status.st_mode):
                found.add(status.st_ino)
    return found
