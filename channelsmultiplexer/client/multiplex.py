"""
One connection, many subscriptions.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Sequence
from typing import Any, Generic, Literal, TypeVar, overload

from ..envelope import SUBPROTOCOL
from ..mailbox import Overflow
from .channels import Channel
from .connection import Connection
from .dialects import V1, Feed, named
from .events import Event, Listener
from .filters import Filter
from .handlers import Handler
from .limits import DEFAULT
from .router import Router
from .stats import MultiplexStats
from .subscriptions import Stream, Subscription, T
from .supervisor import State
from .transports import check_close

__all__ = ["Multiplex"]

S = TypeVar("S")


class Multiplex(Generic[T]):
    """
    Many subscriptions over one connection that is always there.

    To an outside feed::

        async with Multiplex(
            "wss://stream.example.com/ws",
            channel_key="stream",
            subscribe_msg=lambda channel: {"method": "SUBSCRIBE", "params": [channel]},
        ) as mux:
            async for trade in await mux.subscribe("btcusdt@trade"):
                ...

    To our own server::

        async with Multiplex("wss://example.com/ws/", dialect="v1") as mux:
            room = await mux.open("rooms/42/")
            await room.send({"text": "hi"})

    Messages are the JSON of whole frames; a stream's are what the frames carry. They
    are decoded when they are read, and by each subscription for itself, unless
    post-processors, filters or an extractor need them before: then all share one, and
    none may change it.

    Args:
        uri: As of :class:`.Connection`, which also has all *options*.

        channel_key: The key of a message that has its channel; a sequence of keys to
            go down by if it is nested.

        channel_extractor: Or a function from the message to its channel.

        subscribe_msg: Makes the message that subscribes to a channel.

        unsubscribe_msg: Makes the one that unsubscribes.

        batch_size: If given, these two are called with a list of at most so many
            channels.

        ack: Called with a channel and a message while that channel waits to be
            confirmed; returns :obj:`True` if the message confirms it, :obj:`False` if
            it refuses, else :obj:`None`.

        queue_size: How many messages may wait for each reader; 0 for no limit.

        overflow: What happens to more; see :class:`.Mailbox`. Nothing is dropped
            before the reader has had a turn.

        dialect: ``"feed"``, or, to our own server, ``"v1"`` or ``"bare"``.

        type: What messages are decoded into: a msgspec Struct, say.

    Raises:
        ValueError: If the arguments contradict one another.
        TypeError: If what is to be called can't be, or would have to be awaited.
    """

    # What a checker can't see the type of, A | B or Annotated, is Any.

    @overload
    def __init__(
        self,
        uri: str | Callable[[], str | Awaitable[str]],
        *,
        type: type[T],
        channel_key: str | Sequence[str] | None = None,
        channel_extractor: Callable[[Any], Any] | None = None,
        subscribe_msg: Callable[[Any], Any] | None = None,
        unsubscribe_msg: Callable[[Any], Any] | None = None,
        batch_size: int | None = None,
        ack: Callable[[Any, Any], bool | None] | None = None,
        queue_size: int = 1000,
        overflow: Overflow = "drop_oldest",
        dialect: Literal["feed", "v1", "bare"] = "feed",
        **options: Any,
    ) -> None: ...

    @overload
    def __init__(
        self,
        uri: str | Callable[[], str | Awaitable[str]],
        *,
        channel_key: str | Sequence[str] | None = None,
        channel_extractor: Callable[[Any], Any] | None = None,
        subscribe_msg: Callable[[Any], Any] | None = None,
        unsubscribe_msg: Callable[[Any], Any] | None = None,
        batch_size: int | None = None,
        ack: Callable[[Any, Any], bool | None] | None = None,
        queue_size: int = 1000,
        overflow: Overflow = "drop_oldest",
        dialect: Literal["feed", "v1", "bare"] = "feed",
        type: Any = Any,
        **options: Any,
    ) -> None: ...

    def __init__(
        self,
        uri: str | Callable[[], str | Awaitable[str]],
        *,
        channel_key: str | Sequence[str] | None = None,
        channel_extractor: Callable[[Any], Any] | None = None,
        subscribe_msg: Callable[[Any], Any] | None = None,
        unsubscribe_msg: Callable[[Any], Any] | None = None,
        batch_size: int | None = None,
        ack: Callable[[Any, Any], bool | None] | None = None,
        queue_size: int = 1000,
        overflow: Overflow = "drop_oldest",
        dialect: Literal["feed", "v1", "bare"] = "feed",
        type: Any = Any,  # noqa: A002 (msgspec's word)
        **options: Any,
    ) -> None:
        language = named(
            dialect,
            channel_key,
            channel_extractor=channel_extractor,
            subscribe_msg=subscribe_msg,
            unsubscribe_msg=unsubscribe_msg,
            batch_size=batch_size,
            ack=ack,
        )
        if dialect != "feed":
            options.setdefault("subprotocols", language.subprotocols)
        decoded = bool(channel_extractor or options.get("post_processors"))
        self._router = Router(language, channel_extractor, ack, decoded)
        self._options: dict[str, Any] = {
            "type": type,
            "queue_size": queue_size,
            "overflow": overflow,
        }
        # Checked now, rather than by the first subscription.
        self._subscription(None, decoded=decoded)
        #: The connection underneath.
        self.connection: Connection = Connection(
            uri, serve=self._router.serve, **options
        )
        self.connection.on_end = self._router.end
        self.connection.on_promotion = self._router.promoted
        if dialect == "v1":
            self.connection.opener.required = SUBPROTOCOL
        self._router.connection = self.connection
        self._decoded = decoded
        self._handlers: set[Handler] = set()
        self._last_key = 0
        # Where nothing names a channel, all messages are nobody's, from the start.
        if dialect == "feed" and not (channel_key or channel_extractor):
            self._rest()

    # The connection

    async def connect(self, timeout: float | None = None) -> None:
        """
        Connect, as :meth:`.Connection.connect` does.
        """
        await self.connection.connect(timeout)

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """
        Close the connection, for good. What waits can still be read.

        Handlers are called no more: what waits for them is dropped, and what they are
        doing is canceled. Calling it again does nothing.

        Raises:
            ValueError: If no close frame can have that code or reason.
        """
        check_close(code, reason)
        try:
            await self.connection.close(code, reason)
        finally:
            for handler in self._handlers:
                handler.stop()
            # One of them may be who calls this.
            current = asyncio.current_task()
            others = [h for h in self._handlers if h.task is not current]
            await asyncio.gather(*(h.remove() for h in others))

    #: The seed's name for it.
    exit = close
    disconnect = close

    async def __aenter__(self) -> Multiplex[T]:
        await self.connect()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def send(
        self, message: Any, *, limit: str = DEFAULT, auth: bool = False
    ) -> None:
        """
        Send a message, as :meth:`.Connection.send` does.
        """
        await self.connection.send(message, limit=limit, auth=auth)

    async def ping(self, timeout: float | None = None) -> float:
        """
        Return the seconds to the server and back; see :meth:`.Connection.ping`.
        """
        return await self.connection.ping(timeout)

    def on(self, name: str, callback: Callable[[Event], object]) -> Callable[[], None]:
        """
        Call *callback* with each :class:`.Event` of that name; returns what removes it.
        """
        return self.connection.on(name, callback)

    def events(self) -> Listener:
        """
        Return an async iterator over the events from now on; leaving its ``async
        with``, or forgetting it, ends it.
        """
        return self.connection.events()

    @property
    def uri(self) -> Any:
        """Where to."""
        return self.connection.opener.uri

    @property
    def state(self) -> State:
        """How the connection is doing."""
        return self.connection.state

    @property
    def is_connected(self) -> bool:
        """If there is a link."""
        return self.state is State.CONNECTED

    @property
    def present_ws(self) -> Any:
        """The transport's WebSocket of now, if there is one."""
        return self.connection.websocket

    @property
    def last_recv_time(self) -> float:
        """When the last message came; see :attr:`.Connection.last_recv_time`."""
        return self.connection.last_recv_time

    def __repr__(self) -> str:
        return f"<Multiplex {self.uri!r} {self.state.value}>"

    # Subscriptions

    @overload
    async def subscribe(
        self, channel: Any, *, type: type[S], **options: Any
    ) -> Subscription[S]: ...

    @overload
    async def subscribe(
        self, channel: Any, *, type: Any, **options: Any
    ) -> Subscription[Any]: ...

    @overload
    async def subscribe(
        self,
        channel: Any,
        *,
        timeout: float | None = None,
        auth: bool = False,
        **options: Any,
    ) -> Subscription[T]: ...

    async def subscribe(
        self,
        channel: Any,
        *,
        timeout: float | None = None,
        auth: bool = False,
        **options: Any,
    ) -> Subscription[Any]:
        """
        Subscribe to a channel.

        Several subscriptions to a channel each get everything; the server is asked
        once. It is asked again on every new link. Canceling it leaves nothing behind.

        Before :meth:`connect` it returns at once: the server is asked with the first
        link, and what the server sends first isn't missed. A refusal is the reader's.

        Args:
            timeout: Seconds for the server to be asked and, if there is an *ack*, to
                confirm.

            auth: If the message that subscribes is to be signed.

            options: ``type``, ``queue_size`` and ``overflow``, where this subscription
                differs.

        Raises:
            TimeoutError: If it wasn't in time.
            Refused: If the server refused.
            Closed: If the connection has ended.
            ValueError: If there is nothing to sign with.
            RuntimeError: In *on_connect*.
        """
        if auth:
            self.connection.processors.expect_auth()
        try:
            hash(channel)
        except TypeError:
            raise TypeError(f"expected a hashable channel, got {channel!r}") from None
        subscription = self._subscription(channel, decoded=self._decoded, **options)
        new = functools.partial(Channel, channel, channel, auth=auth)
        wanted = self._router.want(channel, new, subscription)
        if self.state is not State.IDLE:
            await self._router.confirmed(wanted, subscription, timeout)
        return subscription

    async def open(
        self,
        path: str,
        *,
        subprotocols: Sequence[str] = (),
        timeout: float | None = None,
        **options: Any,
    ) -> Stream[T]:
        """
        Open a stream to an application of our own server.

        Cancels as :meth:`subscribe`, which has the other arguments. v1 waits for the
        server's answer. In bare all applications run once there is a connection: it
        returns at once before :meth:`connect`, and then nothing is missed; what came
        for a stream before it was opened is unrouted, and no more than counted.

        Args:
            path: In the dialect v1 the application's name and what follows it, a
                relative URL; in bare the name.

        Raises:
            Refused: If the application refused, with its code and reason.
            TimeoutError: If it wasn't in time.
            Closed: If the connection has ended.
            ValueError: If the path, or what is offered, can be no stream's.
            RuntimeError: Before :meth:`connect`, in v1; in *on_connect*.
        """
        router = self._router
        if isinstance(router.dialect, Feed):
            raise TypeError("expected dialect='v1' or 'bare', for streams")
        if not isinstance(path, str) or isinstance(subprotocols, str):
            raise TypeError(
                f"expected a str, and a list of subprotocols, "
                f"got {path!r} and {subprotocols!r}"
            )
        router.dialect.check(path, subprotocols)
        is_idle = self.state is State.IDLE
        if is_idle and isinstance(router.dialect, V1):
            raise RuntimeError("expected connect() first")
        options = {**self._options, **options, "decoded": self._decoded}
        stream: Stream[T] = Stream(router, path, **options)
        key: Hashable = path
        if isinstance(router.dialect, V1):
            # A path can be open several times.
            self._last_key += 1
            key = self._last_key
        new = functools.partial(Channel, key, path, subprotocols=subprotocols)
        stream.wanted = router.want(key, new, stream)
        if not is_idle:
            await router.confirmed(stream.wanted, stream, timeout)
        return stream

    async def unsubscribe(self, channel: Any) -> bool:
        """
        Close all subscriptions to a channel, or all streams of a path.

        Returns:
            If there were any.
        """
        found = self._router.named(channel)
        for wanted in found:
            for subscription in wanted.subscriptions:
                await subscription.close()
        return bool(found)

    def get_subscription(self, channel: Any) -> Subscription[T] | None:
        """
        Return the first subscription to a channel, if there is one.
        """
        found = self._router.named(channel)
        return found[0].subscriptions[0] if found else None

    def list_subscriptions(self) -> list[Any]:
        """
        Return the channels that are subscribed to, or the paths of the open streams.
        """
        channels = self._router.channels.values()
        return [c.name for c in channels if any(s.is_active for s in c.subscriptions)]

    # Everything that comes in

    def stream_filter(self, filters: Filter = None, **options: Any) -> Subscription[T]:
        """
        Return a subscription to all messages that match.

        The server isn't asked for anything.

        Args:
            filters: Dicts. A message matches if any of them has all its pairs in the
                message, by ``==``; without filters all messages match.

            options: As of :meth:`subscribe`.
        """
        stream = self._subscription(filters, decoded=True, **options)
        self._router.watch(stream, filters)
        return stream

    def add_handler(
        self, function: Callable[[T], object], filters: Filter = None, **options: Any
    ) -> Handler:
        """
        Call a function, or coroutine function, with all messages that match.

        It runs in a task of its own, one message after the other, and delays nobody;
        what it raises is logged, as is a message that isn't of its *type*.

        Returns:
            What has ``await handler.remove()``.

        Raises:
            TypeError: If it is no function.
            RuntimeError: Where no event loop runs.
        """
        if not callable(function):
            raise TypeError(f"expected a function, got {function!r}")
        # It needs one, and without it nothing is to be left behind.
        asyncio.get_running_loop()
        handler = Handler(function, self.stream_filter(filters, **options))
        self._handlers.add(handler)
        handler.task.add_done_callback(lambda _: self._handlers.discard(handler))
        return handler

    async def receive(self, timeout: float | None = None) -> T:
        """
        Return the next message that no subscription, filter or handler gets.

        Where messages name their channel, or there are filters, it starts to wait for
        them when it is first called. Cancels and raises as :meth:`.Subscription.recv`.
        """
        return await self._others().recv(timeout)

    def iter_messages(self) -> AsyncIterator[T]:
        """
        Iterate over what :meth:`receive` returns.
        """
        return self._others().__aiter__()

    def stats(self) -> MultiplexStats:
        """
        Return the numbers of now.
        """
        return MultiplexStats.of(self._router)

    # Private

    def _subscription(self, channel: Any, **options: Any) -> Subscription[T]:
        return Subscription(self._router, channel, **{**self._options, **options})

    def _others(self) -> Subscription[T]:
        """Return what gets the messages that nobody else does, and is read."""
        self._router.rest_asked = True
        return self._rest()

    def _rest(self) -> Subscription[T]:
        router = self._router
        if router.rest is None:
            router.rest = self._subscription(None, decoded=True)
            router.total += 1
            if self.state is State.CLOSED:
                router.rest.mailbox.close(self.connection.error)
        return router.rest
