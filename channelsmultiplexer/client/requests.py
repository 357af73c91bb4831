"""
What one link has asked of the server, and what the server said to that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from time import monotonic
from typing import TYPE_CHECKING, Any

from .. import control
from ..exceptions import Closed, Refused
from .channels import Channel
from .dialects import V1, Bare, Feed, Session
from .events import Event
from .link import Link, Standing
from .subscriptions import Stream
from .transports import NORMAL

if TYPE_CHECKING:
    from .router import Router

__all__ = ["Requests"]

# Codes with which our server says that a stream may be opened again (wire protocol).
LATER = frozenset({1011, 1012, 1013, 4429})


class Requests:
    """
    What one link has asked of the server, and what the server said to that.

    It brings what was asked into line with what is wanted, which the router knows.

    Attributes:
        session: What the dialect says on this link.

        pending: The channels that the server has yet to confirm.

        link: The link.
    """

    def __init__(self, router: Router, link: Link) -> None:
        self.session: Session = router.dialect.session(router.channels)
        self.pending: dict[Hashable, Channel] = {}
        self._router = router
        self._connection = router.connection
        self.link = link
        # If what is asked for is there only when the server says so.
        self._confirmed = router.dialect.confirms or router.ack is not None
        # Those that the server was asked for and hasn't ended.
        self._asked: dict[Hashable, Channel] = {}
        # Those of them that it has, with the subprotocols that it chose.
        self._there: dict[Channel, str | None] = {}
        # Keys of channels to look at; a dict for order.
        self._todo: dict[Hashable, None] = dict.fromkeys(router.channels)
        # Set when there is something to do.
        self._wake = asyncio.Event()

    # Asking

    def review(self, key: Hashable) -> None:
        """
        Have a channel looked at: it begins if it is wanted, and ends if it isn't.
        """
        self._todo[key] = None
        self.link.ready.clear()
        self._wake.set()

    async def run(self) -> None:
        """
        Ask for what is wanted, and no more for what isn't; until canceled.
        """
        # Of a connection that was lost, all that is asked for was asked for before.
        again = self._connection.connections > 1 and bool(self._todo)
        while True:
            while self._todo:
                begin, channels = self._take()
                if channels:
                    await self._say(begin, channels)
            self._look()
            if again:
                again = False
                self._connection.emit(Event("resubscribed", count=len(self._asked)))
            self._wake.clear()
            await self._wake.wait()

    def promote(self, lost: bool) -> None:
        """
        Have all that the server has use this link from now on.

        Args:
            lost: If something may have been lost since the link before.
        """
        for channel in list(self._there):
            self._use(channel, lost)

    def close(self) -> None:
        """
        Note that the link has ended, and all that was asked for with it.
        """
        for channel in self._asked.values():
            channel.wire.pop(self.session, None)
            self._down(channel)

    def _take(self) -> tuple[bool, list[Channel]]:
        """Return what goes in one message: if channels begin or end, and which."""
        begin, channels = True, list[Channel]()
        while self._todo and len(channels) < (self._router.dialect.batch_size or 1):
            key = next(iter(self._todo))
            asked, wanted = self._asked.get(key), self._router.channels.get(key)
            # What was asked for ends first, if another of its key is wanted now.
            channel = asked or wanted
            # Another link is asked for what is new.
            leaving = self.link.standing is Standing.LEAVING
            if channel is None or asked is wanted or (leaving and asked is None):
                del self._todo[key]
                continue
            if channels and (begin, channels[0].auth) != (asked is None, channel.auth):
                break
            begin = asked is None
            channels.append(channel)
            if begin:
                del self._todo[key]
                self._asked[key] = channel
                if self._confirmed:
                    self.pending[key] = channel
            else:
                # It stays in _todo: the other one is next.
                self._forget(channel)
        return begin, channels

    async def _say(self, begin: bool, channels: list[Channel]) -> None:
        """Send what makes channels begin, or end."""
        say = self.session.begin if begin else self.session.end
        try:
            frames = say(channels)
            if isinstance(self._router.dialect, Feed):
                frame = self._connection.processors.frame
                frames = [await frame(m, channels[0].auth) for m in frames]
        # The caller's functions, and those who wait for them called subscribe().
        except Exception as error:
            for channel in channels:
                self._unsaid(channel, error)
            if self.link.standing is Standing.COMING:
                raise
            self._connection.emit(Event("error", error=error))
            return
        for frame in frames:
            await self.link.send_frame(frame)
        if begin and not self._confirmed:
            for channel in channels:
                # Unless it was refused meanwhile.
                if self._asked.get(channel.key) is channel:
                    self._confirm(channel)

    # Answers

    def acknowledge(self, message: Any) -> bool:
        """
        Tell if a message is a feed's answer to what it was asked, and heed it.
        """
        assert self._router.ack is not None, "without it there are no answers"
        answers = False
        for channel in list(self.pending.values()):
            try:
                verdict = self._router.ack(channel.name, message)
            # It was written for the messages that are answers.
            except Exception as error:
                self._connection.emit(Event("error", error=error))
                continue
            # One message may answer for several channels.
            if verdict is not None:
                answers = True
            if verdict:
                self._confirm(channel)
            elif verdict is not None:
                self._refuse(channel, Refused(1008, str(message)))
        return answers

    async def heed(self, frame: Any) -> None:
        """
        Do what a control frame of our own server says.
        """
        match frame:
            case control.Opened(stream=number):
                channel = self.session.routes.get(number)
                if channel is not None and channel.key in self.pending:
                    self._confirm(channel, frame.subprotocol)
            case control.Closed(stream=number):
                channel = self.session.routes.pop(number, None)
                if channel is not None:
                    self._closed(channel, frame)
            case control.Error():
                error = Closed(1002, f"{frame.code}: {frame.message}")
                channel = self.session.routes.get(frame.stream)
                name = channel.name if channel else frame.stream
                self._connection.emit(Event("error", channel=name, error=error))
                v1 = isinstance(self._router.dialect, V1)
                if v1 and channel is not None and channel.key in self.pending:
                    # Nothing but its opening was sent: this is the answer.
                    del self.session.routes[frame.stream]
                    self._rejected(channel, error)
                ended = frame.code == "unknown-stream" and frame.stream
                if ended and isinstance(self._router.dialect, Bare):
                    # All that a bare client is told of a stream's end.
                    channel = self._router.channels.get(frame.stream)
                    if channel is not None:
                        self._refuse(channel, Closed(4404, frame.message))
            case control.Ping():
                # At once: who reads doesn't wait for a rate limit.
                await self.link.write(control.Pong().encode())

    def _confirm(self, channel: Channel, subprotocol: str | None = None) -> None:
        """Note that the server has a channel."""
        self.pending.pop(channel.key, None)
        if not self.pending:
            self._wake.set()
        self._there[channel] = subprotocol
        self._look()
        if self.link.standing is Standing.CURRENT:
            self._use(channel, lost=True)

    def _look(self) -> None:
        """Note if the server has all that is wanted."""
        if not self.pending and not self._todo:
            self.link.has_all()

    def _use(self, channel: Channel, lost: bool) -> None:
        """Have a channel use this link from now on."""
        channel.link = self.link
        _, channel.wrapper = channel.wire.get(self.session, ("", None))
        channel.opened_at = monotonic()
        channel.up.set()
        streams = [s for s in channel.subscriptions if isinstance(s, Stream)]
        for stream in streams:
            stream.subprotocol = self._there[channel]
        if channel.ready.done():
            for stream in streams:
                stream.reopened += 1
            # A stream has another application at its other end, lost or not.
            if lost or streams:
                self._connection.emit(Event("gap", channel=channel.name))
        channel.settle()

    def _refuse(self, channel: Channel, error: Closed) -> None:
        """Note that the server won't have a channel, or won't any more."""
        self._forget(channel)
        self._wake.set()
        wanted = self._router.channels.get(channel.key) is channel
        # What becomes of a channel on a link that is closed is of no interest.
        if self.link.standing is Standing.LEAVING:
            return
        # Without it this link is none to take over.
        if wanted and self.link.standing is Standing.COMING:
            raise error
        channel.settle(error)
        if not wanted:
            return
        for subscription in channel.subscriptions:
            normal = error.code in NORMAL and not isinstance(error, Refused)
            if isinstance(subscription, Stream):
                subscription.end(error.code, error.reason)
            subscription.mailbox.close(None if normal else error)
            self._router.leave(subscription)
        channel.up.set()

    def _closed(self, channel: Channel, frame: control.Closed) -> None:
        """Open a stream again if the server says so, else end it."""
        channel.wire.pop(self.session, None)
        wanted = channel.key in self._router.channels
        current = self.link.standing is Standing.CURRENT
        if channel.ready.done() and frame.code in LATER and wanted and current:
            self._forget(channel)
            self._down(channel)
            if self._again(channel):
                return
        self._rejected(channel, Closed(frame.code, frame.reason))

    def _rejected(self, channel: Channel, error: Closed) -> None:
        """Refuse a stream: as one that never was, or as one that has ended."""
        channel.wire.pop(self.session, None)
        if not channel.ready.done():
            error = Refused(error.code, error.reason)
        self._refuse(channel, error)

    def _unsaid(self, channel: Channel, error: Exception) -> None:
        """Note that the server couldn't be asked for a channel."""
        self._forget(channel)
        wanted = self._router.channels.get(channel.key) is channel
        if not wanted or self.link.standing is not Standing.CURRENT:
            return
        if channel.ready.done() and self._again(channel):
            return
        channel.settle(error)
        self._refuse(channel, Closed(1006, f"{type(error).__name__}: {error}"))

    def _again(self, channel: Channel) -> bool:
        """Have a channel begin again, after a delay if there is one left."""
        lasted = monotonic() - channel.opened_at >= self._connection.stable_after
        if channel.delays is None or lasted:
            channel.delays = self._connection.new_delays()
        delay = next(channel.delays, None)
        if delay is not None:
            loop = asyncio.get_running_loop()
            loop.call_later(delay, self.review, channel.key)
        return delay is not None

    def _forget(self, channel: Channel) -> None:
        """Note that the server isn't asked for a channel."""
        self._asked.pop(channel.key, None)
        self.pending.pop(channel.key, None)
        self._there.pop(channel, None)

    def _down(self, channel: Channel) -> None:
        """Note that a channel isn't there, if it was on this link."""
        if channel.link is self.link:
            channel.link = None
            channel.up.clear()
