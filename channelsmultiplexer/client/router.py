"""
Where each message goes, and what the server is asked for.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Hashable
from time import monotonic
from typing import Any

import msgspec

from .. import control
from ..envelope import Envelope, Wrapper
from ..exceptions import Closed, Refused
from ..inbox import Mailbox
from .channels import Channel, Wants
from .connection import Connection
from .dialects import V1, Bare, Feed, Session, loads
from .events import Event
from .filters import Filter, Filters
from .link import Link
from .subscriptions import Stream, Subscription
from .supervisor import State
from .transports import NORMAL

__all__ = ["Router"]

# Codes with which our server says that a stream may be opened again (wire protocol).
LATER = frozenset({1011, 1012, 1013, 4429})

# What a frame, or a callback that looks at one, fails with if the frame is bad.
BAD = (msgspec.DecodeError, ValueError, RecursionError)


class Router:
    """
    The subscriptions of a connection: what is wanted, and who gets what.

    Args:
        dialect: How the server names channels.

        extract: Returns a message's channel, if the dialect can't tell.

        ack: Tells what confirms a channel.

        decoded: If queues have messages that are decoded already.
    """

    #: Underneath; there before anything else is called.
    connection: Connection

    def __init__(
        self,
        dialect: Feed | Bare | V1,
        extract: Callable[[Any], Any] | None,
        ack: Callable[[Any, Any], bool | None] | None,
        decoded: bool,
    ) -> None:
        self.dialect = dialect
        self._extract = extract
        self._ack = ack
        self._decoded = decoded
        keyed = not isinstance(dialect, Feed) or not dialect.keyless
        # Frames as bytes will do, where nobody asks if they were text.
        self._raw = isinstance(dialect, Feed) and keyed and not decoded
        # If a message's channel is all there is to know.
        self._simple = keyed and not decoded
        # What is wanted: by name, and streams of v1 by a number of ours.
        self.channels: dict[Hashable, Channel] = {}
        self.filters: Filters[Subscription[Any]] = Filters()
        # Gets what nobody else does.
        self.rest: Subscription[Any] | None = None
        # What each link has been asked for.
        self._wants: dict[Link, Wants] = {}
        # If each message must be looked at more closely than by its channel.
        self._slow = not self._simple
        # Numbers; see MultiplexStats.
        self.total = 0
        self.received = 0
        self.copied = 0
        self.filtered = 0
        self.unrouted = 0
        self.control = 0
        self.undecodable = 0
        # Of subscriptions that are no more.
        self.gone_received = 0
        self.gone_dropped = 0

    # Who wants what

    def subscriptions(self) -> list[Subscription[Any]]:
        """
        Return all there are.
        """
        found = [s for c in self.channels.values() for s in c.subscriptions]
        found += self.filters
        return [*found, self.rest] if self.rest else found

    def want(
        self, key: Hashable, new: Callable[[], Channel], subscription: Subscription[Any]
    ) -> Channel:
        """
        Add a subscription to a channel, which *new* makes if there is none yet.
        """
        if self.connection.state is State.IDLE:
            raise RuntimeError("expected connect() first")
        self.refuse_if_closed()
        channel = self.channels.get(key)
        if channel is None:
            channel = self.channels[key] = new()
            self._review(key)
        channel.add(subscription)
        subscription.key = key
        self.total += 1
        return channel

    def watch(self, subscription: Subscription[Any], filters: Filter) -> None:
        """
        Add a subscription to all that matches.
        """
        self.refuse_if_closed()
        self.filters.add(subscription, filters)
        self.total += 1
        self._look()

    def refuse_if_closed(self) -> None:
        """
        Raise what the connection ended with, if it has.
        """
        if self.connection.state is State.CLOSED:
            raise self.connection.ending()

    def leave(self, subscription: Subscription[Any]) -> None:
        """
        Forget a subscription, and its channel with the last one.
        """
        if subscription in self.filters:
            self.filters.remove(subscription)
            self._look()
        else:
            channel = self.channels.get(subscription.key)
            if channel is None or subscription not in channel.subscriptions:
                return
            if not channel.remove(subscription):
                del self.channels[subscription.key]
                self._review(subscription.key)
        self.gone_received += subscription.mailbox.received
        self.gone_dropped += subscription.mailbox.dropped

    async def confirmed(
        self, channel: Channel, subscription: Subscription[Any], timeout: float | None
    ) -> None:
        """
        Return when the server has what is wanted; else forget it, and raise.
        """
        try:
            done, _ = await asyncio.wait({channel.ready}, timeout=timeout)
            if not done:
                raise TimeoutError(f"{channel.name!r} wasn't there in {timeout} s")
            error = channel.ready.exception()
            if error is not None:
                raise error
        except BaseException:
            subscription.mailbox.close()
            self.leave(subscription)
            raise

    async def opened(self, stream: Stream[Any]) -> tuple[Link, Wrapper]:
        """
        Return what to send a stream's frames with, once it is open.

        Raises:
            Closed: If it has ended.
        """
        channel = stream.wanted
        while stream.code is None:
            self.refuse_if_closed()
            if channel.link is not None:
                assert channel.wrapper is not None, "it came with the link"
                return channel.link, channel.wrapper
            await channel.up.wait()
        raise Closed(stream.code, stream.reason)

    def end(self, error: Closed | None) -> None:
        """
        Wake everybody: the connection has ended for good.
        """
        for channel in self.channels.values():
            channel.settle(error or Closed(1000))
            channel.link = None
            channel.up.set()
        for subscription in self.subscriptions():
            subscription.mailbox.close(error and self.connection.ending())

    # Asking the server

    def _review(self, key: Hashable) -> None:
        """Have each link look at a channel again."""
        for wants in self._wants.values():
            wants.todo[key] = None
            wants.wake.set()

    async def serve(self, link: Link) -> None:
        """
        Serve a link until it ends: ask for what is wanted, route what comes.
        """
        session = self.dialect.session(self.channels)
        wants = self._wants[link] = Wants(session, list(self.channels))
        self._look()
        writer = asyncio.create_task(self._ask(link, wants))
        pump = asyncio.ensure_future(self._pump(link, session))
        try:
            # Neither goes on without the other.
            await asyncio.wait({writer, pump}, return_when=asyncio.FIRST_COMPLETED)
            await (pump if pump.done() else writer)
        finally:
            del self._wants[link]
            for channel in wants.asked.values():
                channel.wire.pop(session, None)
                if channel.link is link:
                    channel.link = None
                    channel.up.clear()
            self._look()
            for task in (writer, pump):
                task.cancel()
            await asyncio.wait({writer, pump})

    async def _ask(self, link: Link, wants: Wants) -> None:
        """Ask the server for what is wanted, and no more for what isn't."""
        # Of a connection that was lost, all that is asked for was asked for before.
        again = bool(self.connection.connections > 1 and wants.todo)
        while True:
            while wants.todo:
                await self._ask_for(link, wants)
            if not wants.pending:
                link.ready.set()
            if again:
                again = False
                event = Event("resubscribed", count=len(wants.asked))
                self.connection.emit(event)
            wants.wake.clear()
            await wants.wake.wait()

    async def _ask_for(self, link: Link, wants: Wants) -> None:
        """Ask for the next channels, as many as go in one message."""
        keys: list[Hashable] = []
        channels: list[Channel] = []
        begins = True
        while wants.todo and len(keys) < (self.dialect.batch_size or 1):
            key = next(iter(wants.todo))
            channel, asked = self.channels.get(key), wants.asked.get(key)
            if channel is asked:
                del wants.todo[key]
                continue
            subject = asked or channel
            assert subject is not None, "one of them is there, since they differ"
            if not channels:
                begins = asked is None
            elif begins != (asked is None) or channels[0].auth != subject.auth:
                break
            keys.append(key)
            channels.append(subject)
            if begins:
                wants.asked[key] = subject
                if self.dialect.confirms or self._ack:
                    wants.pending[key] = subject
                del wants.todo[key]
            else:
                # It stays in todo: another of the name may be wanted since.
                del wants.asked[key]
                wants.pending.pop(key, None)
        if channels:
            self._look()
            await self._say(link, wants, channels, begins)
            for key, channel in zip(keys, channels, strict=True):
                if begins and key not in wants.pending and key in wants.asked:
                    self._confirm(link, wants, key, channel)

    async def _say(
        self, link: Link, wants: Wants, channels: list[Channel], begins: bool
    ) -> None:
        """Send what makes channels begin, or end."""
        say = wants.session.begin if begins else wants.session.end
        try:
            messages = say(channels)
        # The caller's function, and those who wait for it called subscribe().
        except Exception as error:
            for channel in channels:
                wants.asked.pop(channel.key, None)
                wants.pending.pop(channel.key, None)
                channel.settle(error)
            self.connection.emit(Event("error", error=error))
            return
        for message in messages:
            if isinstance(self.dialect, Feed):
                await link.send(message, auth=channels[0].auth)
            else:
                await link.send_frame(message)

    def _confirm(
        self, link: Link, wants: Wants, key: Hashable, channel: Channel
    ) -> None:
        """Note that the server has a channel."""
        wants.pending.pop(key, None)
        if not wants.pending:
            wants.wake.set()
            self._look()
        channel.link = link
        channel.opened_at = monotonic()
        channel.up.set()
        if channel.ready.done() and link.overlap is None:
            for stream in channel.subscriptions:
                if isinstance(stream, Stream):
                    stream.reopened += 1
            self.connection.emit(Event("gap", channel=channel.name))
        channel.settle()

    def _refuse(
        self, wants: Wants, key: Hashable, channel: Channel, error: Closed
    ) -> None:
        """Note that the server won't have a channel, or won't any more."""
        wants.pending.pop(key, None)
        wants.asked.pop(key, None)
        self._look()
        channel.settle(error)
        wants.wake.set()
        if self.channels.get(key) is not channel:
            return
        for subscription in channel.subscriptions:
            normal = error.code in NORMAL and not isinstance(error, Refused)
            if isinstance(subscription, Stream):
                subscription.end(error.code, error.reason)
            subscription.mailbox.close(None if normal else error)
            self.leave(subscription)
        channel.up.set()

    # Routing

    def _look(self) -> None:
        """Decide if messages must be looked at closely."""
        self._slow = bool(
            not self._simple
            or len(self.filters)
            or (self._ack and any(wants.pending for wants in self._wants.values()))
        )

    async def _pump(self, link: Link, session: Session) -> None:
        """Route what comes, until the link ends."""
        recv = functools.partial(link.websocket.recv, False if self._raw else None)
        raw, decode, kind, routes = (
            self._raw,
            session.decode,
            session.kind,
            session.routes,
        )
        while True:
            frame = await recv()
            link.received_at = monotonic()
            self.received += 1
            # What is usual, in as few steps as can be; all else below.
            if not self._slow and link.overlap is None:
                try:
                    envelope = decode(frame)
                    if envelope.__class__ is kind:
                        (box,) = routes[envelope.stream].boxes
                        items = box.items
                        if len(items) < box.limit:
                            box.received += 1
                            items.append(frame if raw else envelope)
                            if box.getter is not None:
                                box.wake()
                            continue
                # Bad, or nobody's, or several's.
                except (*BAD, KeyError, TypeError):
                    pass
            await self._route(link, session, frame)

    async def _route(self, link: Link, session: Session, frame: Any) -> None:
        """Route a frame, whatever it is."""
        try:
            envelope: Any = self._envelope(session, frame)
        except BAD as error:
            self._bad(error)
            return
        if envelope.__class__ is not session.kind:
            self.control += 1
            await self._heed(link, session, envelope)
            return
        channel = self._find(session.routes, envelope.stream)
        item = frame if isinstance(self.dialect, Feed) else envelope
        if link.overlap is not None:
            data = envelope.data if item is envelope else frame
            name = channel.name if channel else None
            if link.overlap.is_duplicate(link, (name, data)):
                self.filtered += 1
                return
        message: Any = None
        if self._slow:
            try:
                message = _message(item)
            except BAD as error:
                if self._extract is not None and not self.connection.processors.after:
                    self._bad(error)
                    return
                # Text that isn't JSON is text, where nothing says it should be.
                message = frame
            try:
                message = await self.connection.processors.post_process(message)
            # One bad message is no reason to lose the others.
            except Exception as error:
                self._bad(error)
                return
            if message is None and self.connection.processors.after:
                self.filtered += 1
                return
            if self._confirms(link, message):
                self.control += 1
                return
            if self._extract is not None:
                try:
                    name = self._extract(message)
                # It was written for the messages that have a channel.
                except Exception as error:
                    self.connection.emit(Event("error", error=error))
                else:
                    channel = self._find(self.channels, name)
        await self._deliver(channel, item, message)

    async def _deliver(self, channel: Channel | None, item: Any, message: Any) -> None:
        """Put a message in the mailboxes of all who get it."""
        boxes: list[tuple[Mailbox[Any], Any, Any]] = []
        if channel is not None:
            mine = message if self._decoded else item
            boxes = [(box, mine, channel.name) for box in channel.boxes]
        if len(self.filters):
            found = self.filters.match(message)
            boxes += [(s.mailbox, message, s.channel) for s in found]
        if not boxes and self.rest is not None:
            if not self._slow:
                message = _message(item)
            boxes = [(self.rest.mailbox, message, None)]
        if not boxes:
            self.unrouted += 1
            return
        self.copied += len(boxes) - 1
        for box, mine, name in boxes:
            was_full = box.dropped
            if not await box.put(mine):
                self.connection.emit(
                    Event("gap", channel=name, count=box.dropped - was_full)
                )

    def _envelope(self, session: Session, frame: Any) -> Any:
        """Read a frame, also one that has no channel."""
        try:
            return session.decode(frame)
        except BAD:
            if not isinstance(self.dialect, Feed):
                raise
            return self.dialect.envelope(frame)

    @staticmethod
    def _find(routes: dict[Hashable, Any], name: Any) -> Channel | None:
        try:
            return routes.get(name)
        except TypeError:  # A dict or a list is no channel.
            return None

    def _confirms(self, link: Link, message: Any) -> bool:
        """Tell if a message is the server's answer to what it was asked."""
        wants = self._wants.get(link)
        if self._ack is None or wants is None:
            return False
        answers = False
        for key, channel in list(wants.pending.items()):
            try:
                verdict = self._ack(channel.name, message)
            # It was written for the messages that are answers.
            except Exception as error:
                self.connection.emit(Event("error", error=error))
                continue
            # One message may answer for several channels.
            if verdict is not None:
                answers = True
            if verdict:
                self._confirm(link, wants, key, channel)
            elif verdict is not None:
                self._refuse(wants, key, channel, Refused(1008, str(message)))
        return answers

    def _bad(self, error: BaseException) -> None:
        self.undecodable += 1
        self.connection.emit(Event("error", error=error))

    # Our own server's control frames

    async def _heed(self, link: Link, session: Session, frame: Any) -> None:
        wants = self._wants[link]
        match frame:
            case control.Opened(stream=number):
                key, channel = self._asked(wants, number)
                if channel is not None and key in wants.pending:
                    for stream in channel.subscriptions:
                        if isinstance(stream, Stream):
                            stream.subprotocol = frame.subprotocol
                    self._confirm(link, wants, key, channel)
            case control.Closed(stream=number):
                key, channel = self._asked(wants, number)
                session.routes.pop(number, None)
                if channel is not None:
                    self._stream_closed(link, wants, key, channel, frame)
            case control.Error():
                error = Closed(1002, f"{frame.code}: {frame.message}")
                self.connection.emit(Event("error", channel=frame.stream, error=error))
                ended = frame.code == "unknown-stream" and frame.stream
                if ended and isinstance(self.dialect, Bare):
                    # All that a bare client is told of a stream's end.
                    found = self.channels.get(frame.stream)
                    if found is not None:
                        error = Closed(4404, frame.message)
                        self._refuse(wants, frame.stream, found, error)
            case control.Ping():
                await link.send_frame(control.Pong().encode())

    def _asked(self, wants: Wants, number: str) -> tuple[Hashable, Channel | None]:
        """Return the channel that has a number on this link."""
        channel = wants.session.routes.get(number)
        return (channel.key, channel) if channel is not None else (None, None)

    def _stream_closed(
        self,
        link: Link,
        wants: Wants,
        key: Hashable,
        channel: Channel,
        frame: control.Closed,
    ) -> None:
        """Open a stream again if the server says so, else end it."""
        channel.wire.pop(wants.session, None)
        if channel.ready.done() and frame.code in LATER and key in self.channels:
            wants.asked.pop(key, None)
            wants.pending.pop(key, None)
            if channel.link is link:
                channel.link = None
                channel.up.clear()
            lasted = monotonic() - channel.opened_at >= self.connection.stable_after
            if channel.delays is None or lasted:
                channel.delays = self.connection.new_delays()
            delay = next(channel.delays, None)
            if delay is not None:
                again = functools.partial(self._again, link, key)
                asyncio.get_running_loop().call_later(delay, again)
                return
        kind = Closed if channel.ready.done() else Refused
        self._refuse(wants, key, channel, kind(frame.code, frame.reason))

    def _again(self, link: Link, key: Hashable) -> None:
        wants = self._wants.get(link)
        if wants is not None and key in self.channels:
            wants.todo[key] = None
            wants.wake.set()


def _message(item: Any) -> Any:
    """Return what an item of a queue means."""
    if isinstance(item, Envelope):
        return loads(item.data) if item.is_json else item.data
    return loads(item)
