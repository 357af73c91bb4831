"""
Who wants what, and where each message goes.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Hashable
from time import monotonic
from typing import Any

import msgspec

from ..envelope import Envelope, Wrapper
from ..exceptions import Closed
from ..mailbox import Mailbox
from .channels import Channel
from .connection import Connection
from .dialects import V1, Bare, Feed, Session, loads
from .events import Event
from .filters import Filter, Filters
from .link import Link
from .requests import Requests
from .subscriptions import Stream, Subscription
from .supervisor import State
from .transports import is_open, taker

__all__ = ["Router"]

# What a frame, or a callback that looks at one, fails with if the frame is bad.
BAD = (msgspec.DecodeError, ValueError, RecursionError)


class Router:
    """
    The subscriptions of a connection: what they want, and who gets what.

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
        self.ack = ack
        self._decoded = decoded
        keyed = not isinstance(dialect, Feed) or not dialect.keyless
        # Frames as bytes will do, where nobody asks if they were text.
        self._raw = isinstance(dialect, Feed) and keyed and not decoded
        # What is wanted: by name, and streams of v1 by a number of ours.
        self.channels: dict[Hashable, Channel] = {}
        self.filters: Filters[Subscription[Any]] = Filters()
        # Gets what nobody else does, and if anybody has asked for it.
        self.rest: Subscription[Any] | None = None
        self.rest_asked = False
        # Of each link, what it has been asked for.
        self._requests: set[Requests] = set()
        # If a message's channel is all there is to know; it is while nobody filters.
        self._keyed = keyed and not decoded
        self._simple = self._keyed
        # Numbers; see MultiplexStats.
        self.total: int = 0
        self.received: int = 0
        self.copied: int = 0
        self.filtered: int = 0
        self.unrouted: int = 0
        self.control: int = 0
        self.undecodable: int = 0
        # How many post-processors are at work on.
        self.processed: int = 0
        # Of subscriptions that are no more, and their mailboxes.
        self._left: weakref.WeakSet[Mailbox[Any]] = weakref.WeakSet()
        self.gone_received: int = 0
        self.gone_dropped: int = 0

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
        self.connection.opener.refuse_inside()
        self.refuse_if_closed()
        channel = self.channels.get(key)
        if channel is None:
            channel = self.channels[key] = new()
            self._review(key)
        channel.add(subscription)
        subscription.key = key
        self.total += 1
        return channel

    def named(self, name: Any) -> list[Channel]:
        """
        Return the channels of that name: one at most, but for streams of v1.
        """
        if isinstance(self.dialect, V1):
            return [c for c in self.channels.values() if c.name == name]
        channel = self._find(self.channels, name)
        return [channel] if channel else []

    def watch(self, subscription: Subscription[Any], filters: Filter) -> None:
        """
        Add a subscription to all that matches.
        """
        self.refuse_if_closed()
        self.filters.add(subscription, filters)
        self.total += 1
        self._simple = False

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
            self._simple = self._keyed and not len(self.filters)
        elif not self._has(subscription):
            return
        elif not self.channels[subscription.key].remove(subscription):
            channel = self.channels.pop(subscription.key)
            # Others may wait for it to be confirmed, or to come back.
            channel.settle(Closed(1000, "unsubscribed"))
            channel.wake()
            self._review(subscription.key)
        self._left.add(subscription.mailbox)
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

    async def send(
        self, stream: Stream[Any], frame: Callable[[Wrapper], str | bytes]
    ) -> None:
        """
        Send a frame on a stream, once that is open.

        Args:
            frame: Makes it for the link that it goes on: a stream has a number there.

        Raises:
            Closed: If it has ended.
            RuntimeError: Before the connection is opened.
        """
        while True:
            await self._opened(stream)
            await self.connection.limiter.acquire()
            link, wrapper = stream.wanted.link, stream.wanted.wrapper
            if link is not None and is_open(link.websocket):
                assert wrapper is not None, "it came with the link"
                if link.overlap is not None:
                    link.overlap.ask(link, stream.wanted.key)
                return await link.write(frame(wrapper))

    async def _opened(self, stream: Stream[Any]) -> None:
        """Return once a stream is open."""
        channel = stream.wanted
        while stream.code is None:
            self.connection.opener.refuse_inside()
            self.refuse_if_closed()
            if self.connection.state is State.IDLE:
                raise RuntimeError("expected connect() first")
            if channel.link is None:
                await channel.up.wait()
            elif is_open(channel.link.websocket):
                return
            else:
                # Closing, and its reader hasn't noticed.
                await asyncio.wait({channel.link.task})
        raise Closed(stream.code, stream.reason)

    def promoted(self, link: Link, lost: bool) -> None:
        """
        Have all that is open on a link use it from now on.

        Args:
            lost: If something may have been lost since the link before.
        """
        for requests in self._requests:
            if requests.link is link:
                requests.promote(lost)
        if lost and (len(self.filters) or self.rest is not None):
            self.connection.emit(Event("gap"))

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

    def _has(self, subscription: Subscription[Any]) -> bool:
        """Tell if a subscription is a channel's, which it no longer is once it left."""
        channel = self.channels.get(subscription.key)
        return channel is not None and subscription in channel.subscriptions

    def _review(self, key: Hashable) -> None:
        """Have each link look at a channel again."""
        for requests in self._requests:
            requests.review(key)

    # Routing

    async def serve(self, link: Link) -> None:
        """
        Serve a link until it ends: ask for what is wanted, route what comes.
        """
        requests = Requests(self, link)
        self._requests.add(requests)
        writer = asyncio.create_task(requests.run())
        pump = asyncio.ensure_future(self._pump(link, requests))
        try:
            # Neither goes on without the other.
            await asyncio.wait({writer, pump}, return_when=asyncio.FIRST_COMPLETED)
            await (pump if pump.done() else writer)
        finally:
            self._requests.discard(requests)
            requests.close()
            for task in (writer, pump):
                task.cancel()
            await asyncio.wait({writer, pump})

    async def _pump(self, link: Link, requests: Requests) -> None:
        """Route what comes, until the link ends."""
        recv, session, raw = link.websocket.recv, requests.session, self._raw
        # Else text is text.
        decoding = False if raw else None
        take = taker(link.websocket, raw)
        decode, kind, routes = session.decode, session.kind, session.routes
        # Any message may be the answer to one of these.
        unanswered = requests.pending if self.ack else {}
        while True:
            frame = take() if take else None
            if frame is None:
                frame = await recv(decoding)
            link.received_at = monotonic()
            self.received += 1
            # What is usual, in as few steps as can be; all else below.
            if self._simple and not unanswered and link.overlap is None:
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
            link.is_held = True
            await self._route(link, requests, frame)
            link.is_held = False

    async def _route(self, link: Link, requests: Requests, frame: Any) -> None:
        """Route a frame, whatever it is."""
        session = requests.session
        processors = self.connection.processors
        try:
            envelope: Any = self._envelope(session, frame)
        except BAD as error:
            # What they are for may be to make it readable.
            if not (processors.after and isinstance(self.dialect, Feed)):
                self._bad(error)
                return
            envelope = session.kind(None)
        if envelope.__class__ is not session.kind:
            self.control += 1
            await requests.heed(envelope)
            return
        channel = self._find(session.routes, envelope.stream)
        item = frame if isinstance(self.dialect, Feed) else envelope
        if link.overlap is not None:
            data = envelope.data if item is envelope else frame
            # Two streams of one path are two, and may be sent the same.
            key = channel.key if channel else None
            if link.overlap.is_duplicate(link, (key, data)):
                self.filtered += 1
                return
        message: Any = None
        rests = self.rest is not None and not (channel and channel.boxes)
        if not self._simple or rests or (self.ack and requests.pending):
            try:
                message = _message(item)
            except BAD as error:
                if self._extract is not None and not processors.after:
                    self._bad(error)
                    return
                # Text that isn't JSON is text, where nothing says it should be.
                message = frame
            self.processed += 1
            try:
                message = await processors.post_process(message)
            # One bad message is no reason to lose the others.
            except Exception as error:
                self._bad(error)
                return
            # The connection has ended.
            except asyncio.CancelledError:
                self.gone_received += 1
                self.gone_dropped += 1
                raise
            finally:
                self.processed -= 1
            if message is None and processors.after:
                self.filtered += 1
                return
            if self.ack and requests.acknowledge(message):
                self.control += 1
                return
            extract = self._extract
            # What they have made may name one.
            if processors.after and channel is None and isinstance(self.dialect, Feed):
                extract = extract or self.dialect.name
            if extract is not None:
                try:
                    name = extract(message)
                # It was written for the messages that have a channel.
                except Exception as error:
                    self.connection.emit(Event("error", error=error))
                else:
                    channel = self._find(self.channels, name)
        await self._deliver(link, channel, item, message)

    async def _deliver(
        self, link: Link, channel: Channel | None, item: Any, message: Any
    ) -> None:
        """Put a message in the mailboxes of all who get it."""
        boxes: list[tuple[Mailbox[Any], Any, Any]] = []
        if channel is not None:
            mine = message if self._decoded else item
            boxes = [(box, mine, channel.name) for box in channel.boxes]
        if len(self.filters):
            found = self.filters.match(message)
            boxes += [(s.mailbox, message, s.channel) for s in found]
        # Of a feed without channels it is there from the start; with filters, that
        # may be for nobody.
        asked = self.rest_asked or not len(self.filters)
        if not boxes and self.rest is not None and asked:
            boxes = [(self.rest.mailbox, message, None)]
        if not boxes:
            self.unrouted += 1
            return
        # One of them has the message itself.
        self.copied -= 1
        for box, mine, name in boxes:
            was_full = box.dropped
            self.copied += 1
            kept = await box.put(mine, link.ending)
            if box.closed and box in self._left:
                # Its reader left meanwhile, and took its numbers along.
                self.gone_received += 1
                self.gone_dropped += 1
            elif not kept:
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

    def unreadable(self, subscription: Subscription[Any], error: Exception) -> None:
        """
        Count a message as undecodable that a subscription had, and skips.
        """
        self._bad(error)
        subscription.mailbox.received -= 1
        if not self._has(subscription):
            self.gone_received -= 1

    def _bad(self, error: BaseException) -> None:
        self.undecodable += 1
        self.connection.emit(Event("error", error=error))


def _message(item: Any) -> Any:
    """Return what an item of a queue means."""
    if isinstance(item, Envelope):
        return loads(item.data) if item.is_json else item.data
    return loads(item)
