"""
Functions that are called with messages.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable
from typing import Any

import msgspec

from ..exceptions import Closed, InboxFull
from .subscriptions import Subscription

__all__ = ["Handler"]

logger: logging.Logger = logging.getLogger(__name__)


class Handler:
    """
    Calls a function with each message of a subscription, one after the other.
    """

    def __init__(
        self, function: Callable[[Any], object], messages: Subscription[Any]
    ) -> None:
        self._function = function
        self._messages = messages
        self.task: asyncio.Task[None] = asyncio.create_task(self._run())

    def stop(self) -> None:
        """
        Call the function no more, and cancel what it is doing, unless that calls this.
        """
        self._messages.mailbox.close()
        self._messages.mailbox.discard()
        if self.task is not asyncio.current_task():
            self.task.cancel()

    async def remove(self) -> None:
        """
        Call the function no more, and don't wait for what it is doing: cancel it.
        """
        self.stop()
        await self._messages.close()
        if self.task is not asyncio.current_task():
            await asyncio.wait({self.task})

    async def _run(self) -> None:
        try:
            while True:
                # The next message may be a better one.
                try:
                    message = await self._messages.recv()
                except msgspec.ValidationError:
                    logger.exception("No message for the handler %r", self._function)
                    continue
                try:
                    result = self._function(message)
                    if inspect.isawaitable(result):
                        await result
                except Exception:
                    logger.exception("The handler %r raised", self._function)
        except Closed:
            pass
        except InboxFull as error:
            logger.error("The handler %r is too slow: %s", self._function, error)
        except asyncio.CancelledError:
            if self._messages.is_active:
                logger.warning("The handler %r was canceled", self._function)
            raise
        finally:
            await self._messages.close()
