"""
What is wanted of a server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Iterator, Sequence
from typing import Any

from ..envelope import Wrapper
from ..mailbox import Mailbox
from .dialects import Session
from .link import Link
from .subscriptions import Subscription

__all__ = ["Channel"]


class Channel:
    """
    What is wanted of the server, by all who want it together.
    """

    def __init__(
        self,
        key: Hashable,
        name: Any,
        *,
        auth: bool = False,
        subprotocols: Sequence[str] = (),
    ) -> None:
        # What it is known by here, and to the server.
        self.key = key
        self.name = name
        self.auth = auth
        self.subprotocols = subprotocols
        self.subscriptions: tuple[Subscription[Any], ...] = ()
        # Their mailboxes; for the pump.
        self.boxes: tuple[Mailbox[Any], ...] = ()
        # Done when the server has been asked, and, if it confirms, has confirmed.
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # The link on which the server has it now, and an event set while there is
        # one, or when there will be none.
        self.link: Link | None = None
        self.up: asyncio.Event = asyncio.Event()
        self.opened_at: float = 0.0
        # Of a stream: its number and what writes its frames, on each link and on the
        # one above, what to close it with, and how long to wait before it is opened
        # again.
        self.wire: dict[Session, tuple[str, Wrapper]] = {}
        self.wrapper: Wrapper | None = None
        self.ending: tuple[int, str] = (1000, "")
        self.delays: Iterator[float] | None = None

    def add(self, subscription: Subscription[Any]) -> None:
        """Add who wants it."""
        self._set((*self.subscriptions, subscription))

    def remove(self, subscription: Subscription[Any]) -> bool:
        """Return if anybody is left."""
        left = (s for s in self.subscriptions if s is not subscription)
        self._set(tuple(left))
        return bool(self.subscriptions)

    def _set(self, subscriptions: tuple[Subscription[Any], ...]) -> None:
        # New tuples, since the pump may be halfway through the old ones.
        self.subscriptions = subscriptions
        self.boxes = tuple(s.mailbox for s in subscriptions)

    def wake(self) -> None:
        """Have all who wait for it to be there look again."""
        self.up.set()
        if self.link is None:
            self.up.clear()

    def settle(self, error: Exception | None = None) -> None:
        """Answer those who wait for the first confirmation."""
        if not self.ready.done():
            if error is None:
                self.ready.set_result(None)
            else:
                self.ready.set_exception(error)
                # It is for those who wait, if any do.
                self.ready.exception()
