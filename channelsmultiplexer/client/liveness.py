"""
What notices that a link is dead, though nothing says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine, Sequence
from time import monotonic
from typing import Any

from .link import Link
from .transports import drop, is_open, unsent

__all__ = ["watch_closing", "watch_end", "watch_pongs", "watch_silence", "watched"]


async def watched(
    serving: Awaitable[None], watches: Sequence[Coroutine[Any, Any, None]]
) -> None:
    """
    Serve a link, and watch it while that lasts.
    """
    tasks = [asyncio.create_task(watch) for watch in watches]
    try:
        await serving
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def watch_end(link: Link) -> None:
    """
    Note the end of a link whose reader waits for room, and wouldn't.
    """
    await link.websocket.wait_closed()
    link.end()


async def watch_closing(link: Link, timeout: float) -> None:
    """
    Drop a link whose other end has closed it, and in *timeout* seconds hasn't gone.

    Nothing tells of the closing: a reader of websockets waits until the network's
    connection ends, however long. So it may take twice as long.
    """
    while is_open(link.websocket):  # noqa: ASYNC110 (no event to be had)
        await asyncio.sleep(timeout)
    await asyncio.sleep(timeout)
    await drop(link.websocket)


async def watch_silence(link: Link, timeout: float) -> None:
    """
    Drop a link on which no message comes for *timeout* seconds.
    """
    while True:
        # What may have come waits for us.
        last = monotonic() if link.is_held else link.received_at or link.opened_at
        left = last + timeout - monotonic()
        if left <= 0:
            break
        await asyncio.sleep(left)
    link.error = TimeoutError(f"no message in {timeout} s")
    await drop(link.websocket)


async def watch_pongs(link: Link, interval: float, timeout: float | None) -> None:
    """
    Ping every *interval* seconds; drop a link that doesn't answer in *timeout*.

    The transport's own pings take a healthy link for a dead one while its reader
    waits for room: it is we who don't read the pong then.
    """
    while True:
        await asyncio.sleep(interval)
        asked_at = monotonic()
        pong = asyncio.ensure_future(_pong(link.websocket))
        try:
            # The ping adds to it.
            await asyncio.sleep(0)
            before = unsent(link.websocket)
            done, _ = await asyncio.wait({pong}, timeout=timeout)
        finally:
            pong.cancel()
        if done:
            # The reader has the same to say.
            if pong.exception() is not None:
                return
            continue
        # The ping waits behind what the other end doesn't take.
        now = unsent(link.websocket)
        if now and now == before:
            link.error = TimeoutError(f"nothing was taken in {timeout} s")
            break
        is_quiet = link.received_at < asked_at and not link.is_held
        if is_quiet and not now:
            link.error = TimeoutError(f"no pong in {timeout} s")
            break
    await drop(link.websocket)


async def _pong(websocket: Any) -> None:
    await (await websocket.ping())
