"""
What messages go through on their way out and in.
"""

from __future__ import annotations

import asyncio
import contextvars
import copy
import functools
import inspect
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias

import msgspec

__all__ = ["Processor", "Processors", "encode", "in_callback", "outcome"]

Processor: TypeAlias = Callable[[Any], Any]

# The task that a callback runs in. Those that it starts see it too, and aren't it.
_callback: contextvars.ContextVar[asyncio.Task[Any] | None] = contextvars.ContextVar(
    "_callback", default=None
)


class Processors:
    """
    What a connection's messages go through.

    Args:
        auth: Signs those that ask for it.

        before: Applied in order to each that is sent.

        after: Applied in order to each that came in.
    """

    def __init__(
        self,
        auth: Processor | None,
        before: Sequence[Processor],
        after: Sequence[Processor],
    ) -> None:
        self.after = after
        self._auth = auth
        self._before = before

    async def pre_process(self, message: Any) -> Any:
        """
        Return what is to be sent for a message, before it is signed.

        Raises:
            TypeError: If a processor returns :obj:`None`.
        """
        if self._before:
            # They may write to it, and it is the caller's.
            message = copy.deepcopy(message)
        for processor in self._before:
            message = await _message(processor, message)
        return message

    def expect_auth(self) -> Processor:
        """
        Return what signs.

        Raises:
            ValueError: If nothing does.
        """
        if self._auth is None:
            raise ValueError("expected auth= of the connection, to sign with")
        return self._auth

    async def frame(self, message: Any, auth: bool) -> str | bytes:
        """
        Return the frame that a message becomes, signed if *auth*.

        Raises:
            ValueError: If there is nothing to sign with.
            TypeError: If a processor returns :obj:`None`, or the message has no JSON.
        """
        message = await self.pre_process(message)
        if auth:
            message = await _message(self.expect_auth(), copy.deepcopy(message))
        return message if isinstance(message, str | bytes) else encode(message)

    async def post_process(self, message: Any) -> Any:
        """
        Return what becomes of a message that came in; :obj:`None` if it is dropped.
        """
        for processor in self.after:
            message = await _settle(processor(message))
            if message is None:
                break
        return message


def encode(value: Any) -> str:
    """
    Return a value's JSON: msgspec's, who knows dates and Structs.

    Raises:
        TypeError: If it has none.
    """
    try:
        return msgspec.json.encode(value).decode()
    # What only json writes: lone surrogates, subclasses of str.
    except (UnicodeEncodeError, TypeError):
        return json.dumps(value)


async def outcome(awaitable: Awaitable[Any]) -> Any:
    """
    Return what something of the caller's returns, or raise what it raises.

    That it, or what it waits for, was canceled is no cancellation of ours: it would
    end our own task without a word.

    Raises:
        RuntimeError: If it was canceled, and not by us.
    """
    task = asyncio.create_task(_call(awaitable))
    task.add_done_callback(functools.partial(_let_go, awaitable))
    try:
        await asyncio.wait({task})
    finally:
        task.cancel()
        await asyncio.wait({task})
    if task.cancelled():
        raise RuntimeError("expected a result, but it was canceled")
    return task.result()


def in_callback() -> bool:
    """
    Tell if who calls this is what :func:`outcome` waits for, in the same task.
    """
    return _callback.get() is asyncio.current_task()


async def _call(awaitable: Awaitable[Any]) -> Any:
    _callback.set(asyncio.current_task())
    return await awaitable


def _let_go(awaitable: Awaitable[Any], task: asyncio.Task[Any]) -> None:
    """Have asyncio warn of nothing, whoever was canceled, and however often."""
    if not task.cancelled():
        task.exception()
    # Nobody has awaited it if that was before the task began.
    if inspect.iscoroutine(awaitable):
        awaitable.close()


async def _message(processor: Processor, message: Any) -> Any:
    """Return what a processor makes of a message to be sent, if it returns it."""
    made = await _settle(processor(message))
    # It has forgotten to: nobody means to send null.
    if made is None:
        raise TypeError(f"expected the message from {processor!r}, got None")
    return made


async def _settle(value: Any) -> Any:
    """Return *value*, or its outcome if it is to be awaited."""
    return await outcome(value) if inspect.isawaitable(value) else value
