"""
The public API, used whole, for type checkers. It is never run.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

import msgspec
from channels.generic.websocket import AsyncJsonWebsocketConsumer
from channels.routing import URLRouter
from django.dispatch import receiver
from django.urls import path
from typing_extensions import assert_type

from channelsmultiplexer import (
    AsyncJsonWebsocketDemultiplexer,
    InvalidFrame,
    MultiplexError,
    __version__,
)
from channelsmultiplexer.client import (
    Closed,
    Connection,
    Event,
    Handler,
    InboxFull,
    Link,
    MemoryServer,
    Multiplex,
    MultiplexStats,
    RateLimit,
    Refused,
    State,
    Stream,
    Subscription,
    SubscriptionStats,
)
from channelsmultiplexer.pubsub import (
    Activation,
    ChannelSubscription,
    Gap,
    InactiveSubscription,
    Message,
    Multiplexer,
    NameRefused,
    OnActivation,
    OnDisconnect,
    OnGap,
    OnMessage,
    PatternSubscription,
    Promise,
    PromiseLost,
    PromiseSubscription,
    RedisListener,
    RedisUnavailable,
    SubscriptionIsClosed,
    shared,
)
from channelsmultiplexer.signals import stream_closed, stream_opened
from channelsmultiplexer.stats import Counts, Stats
from channelsmultiplexer.testing import Ended, MultiplexCommunicator

version: str = __version__


# The demultiplexer


class EchoConsumer(AsyncJsonWebsocketConsumer):
    async def receive_json(self, content: Any, **kwargs: Any) -> None:
        await self.send_json(content)


class Demultiplexer(AsyncJsonWebsocketDemultiplexer):
    applications = {
        "echo": EchoConsumer.as_asgi(),
        # django-stubs' path() takes views.
        "rooms": URLRouter([cast(Any, path)("<int:number>/", EchoConsumer.as_asgi())]),
    }
    application_close_timeout = 2.5
    max_streams = 10
    inbox_limit = 1024
    inbox_timeout = None
    overflow = "close"
    accept_when = "all"
    max_invalid_frames = 3
    heartbeat = 20
    stream_key = "s"
    payload_key = "p"

    async def connect(self) -> None:
        if self.scope["user"].is_anonymous:
            await self.close(4401)

    async def invalid_frame(self, error: InvalidFrame) -> None:
        code: str = error.code
        stream: str | None = error.stream
        print(code, stream, error.detail)
        raise error

    async def websocket_accept(self, message: dict[str, Any], stream_name: str) -> None:
        await super().websocket_accept(message, stream_name)

    async def receive_json(self, content: Any, **kwargs: Any) -> None:
        await super().receive_json(content, **kwargs)


mounted = Demultiplexer.as_asgi()
given = AsyncJsonWebsocketDemultiplexer.as_asgi(echo=EchoConsumer.as_asgi())
stats: Stats = Demultiplexer.stats()
streams: Counts = stats.streams
refused: int = streams.refused


@receiver(stream_opened)
@receiver(stream_closed)
def note(sender: type, **kwargs: Any) -> None:
    pass


async def test_echo() -> None:
    async with MultiplexCommunicator(mounted, "/ws/", user=None) as client:
        echo = await client.open("echo")
        await echo.send_json([1])
        assert await echo.receive_json(timeout=1) == [1]
        await echo.close(1000, "enough")
        code, reason = await echo.wait_closed()
        print(code + 1, reason.upper(), echo.subprotocol, echo.closed)
        echo = client.open_nowait("echo", subprotocols=["a"])
        await echo.wait_open(timeout=1)
        text: str = await echo.receive_text()
        data: bytes = await echo.receive_bytes()
        print(text, data)
        await client.send_frame({"stream": "1", "payload": 1})
        print(await client.receive_frame(timeout=1))
        nothing: bool = await client.receive_nothing()
        print(nothing)
        await client.disconnect(1001)


# The Python client


class Trade(msgspec.Struct):
    price: float


async def subscribe() -> None:
    mux = Multiplex(
        "wss://feed.example/",
        channel_key="stream",
        subscribe_msg=lambda channel: {"subscribe": channel},
        limits=[RateLimit("default", limit=5, interval=1)],
        overflow="latest",
        type=Trade,
    )
    async with mux:
        trades = await mux.subscribe("btc", timeout=5)
        assert_type(trades, Subscription[Trade])
        async for trade in trades:
            print(trade.price + 1)
        assert_type(await trades.recv(timeout=1), Trade)
        assert_type(await trades.recv_many(), list[Trade])
        numbers_of_one: SubscriptionStats = trades.stats()
        print(trades.dropped, trades.is_active, numbers_of_one.delivered)
        assert_type(mux.get_subscription("btc"), Subscription[Trade] | None)
        async with mux.stream_filter([{"a": 1}], queue_size=10) as filtered:
            assert_type(filtered, Subscription[Trade])
        assert_type(await mux.receive(timeout=1), Trade)
        async for trade in mux.iter_messages():
            assert_type(trade, Trade)
        left: bool = await mux.unsubscribe("btc")
        numbers: MultiplexStats = mux.stats()
        print(left, numbers.received, mux.list_subscriptions())
        handler: Handler = mux.add_handler(lambda trade: print(trade.price), [{"a": 1}])
        await handler.remove()
        remove = mux.on("gap", lambda event: print(event.channel))
        remove()
        async for event in mux.events():
            name: str = event.name
            print(name, event.code, event.reason, event.delay, event.error)
        seconds: float = await mux.ping(timeout=1)
        print(seconds, mux.state is State.CONNECTED, mux.is_connected)
        print(mux.last_recv_time + 1, mux.present_ws, mux.uri)


async def subscribe_to_types() -> None:
    mux = Multiplex("wss://feed.example/")
    assert_type(mux, Multiplex[Any])
    assert_type(await mux.subscribe("btc"), Subscription[Any])
    assert_type(await mux.subscribe("btc", type=Trade), Subscription[Trade])
    trades = Multiplex("wss://feed.example/", type=Trade)
    assert_type(trades, Multiplex[Trade])
    assert_type(await trades.subscribe("eth", type=list[int]), Subscription[list[int]])
    assert_type(await trades.subscribe("eth", type=Trade | int), Subscription[Any])
    either = Multiplex[Trade | int]("wss://feed.example/", type=Trade | int)
    assert_type(await either.subscribe("btc"), Subscription[Trade | int])
    await either.disconnect()


async def untyped() -> None:
    async with Multiplex("ws://localhost/", dialect="v1") as mux:
        room = await mux.open("rooms/42/", subprotocols=["a"], timeout=5)
        assert_type(room, Stream[Any])
        stream: Stream[Any] = room
        await stream.send({"text": "hi"})
        await stream.send_text("hi")
        await stream.send_bytes(b"hi")
        try:
            print((await stream.recv())["text"], stream.reopened, stream.subprotocol)
        except Refused as error:
            print(error.code + 1, error.reason.upper())
        except (Closed, InboxFull, TimeoutError):
            pass
        await stream.close(1000, "enough")


async def connection() -> None:
    async def log_in(link: Link) -> None:
        await link.send({"key": 1}, auth=True)
        frame: str | bytes = await link.receive()
        print(frame)

    def told(event: Event) -> None:
        print(event.name)

    server = MemoryServer()
    link = Connection(
        "ws://memory/",
        transport=server.connect,
        headers={"a": "b"},
        renew_after=3600,
        on_connect=log_in,
    )
    await link.connect(timeout=5)
    link.on("connected", told)
    await link.send("text", limit="default")
    async for frame in link:
        print(frame)
    await link.close(1000, "enough")


# The Redis hop


class PriceConsumer(RedisListener, AsyncJsonWebsocketConsumer):
    redis_url = "redis://localhost"

    async def connect(self) -> None:
        await self.accept()
        await self.listen("prices.*", b"news")
        await self.unlisten("news")

    async def redis_message(self, event: dict[str, Any]) -> None:
        await self.send_json(event["channel"].decode())


async def redis() -> None:
    async with Multiplexer("redis://localhost", client_name="me") as mpx:
        async with mpx.subscribe("a", b"b", patterns=["c.*"], inbox_limit=10) as sub:
            async for message in sub:
                channel: bytes = message.channel
                pattern: bytes | None = message.pattern
                print(channel, message.data, pattern)
            match await sub.get():
                case Message(data=data):
                    print(data.decode())
                case Gap(error=error, dropped=dropped):
                    print(error, dropped)
                case Activation(name=name):
                    print(name.decode())
        receivers: int = await mpx.publish("a", b"data")
        print(receivers, mpx.closed, mpx.connections, mpx.connected_event.is_set())

        async def on_message(channel: bytes, message: bytes) -> None:
            print(channel, message)

        def on_gap(gap: Gap) -> None:
            print(gap.dropped)

        def on_disconnect(error: Exception) -> None:
            print(error)

        async def on_activation(name: bytes) -> None:
            print(name)

        callbacks: tuple[OnMessage, OnDisconnect, OnActivation, OnGap] = (
            on_message,
            on_disconnect,
            on_activation,
            on_gap,
        )
        channels = mpx.new_channel_subscription(*callbacks[:3], on_gap=callbacks[3])
        assert_type(channels, ChannelSubscription)
        channels.add("a", b"b")
        channels.remove("a")
        channels.clear()
        channels.close()
        news = mpx.new_pattern_subscription("news.*", lambda channel, message: None)
        assert_type(news, PatternSubscription)
        news.close()
        promises = mpx.new_promise_subscription("answers.")
        assert_type(promises, PromiseSubscription)
        await promises.wait_for_activation(timeout=1)
        promise: Promise = promises.new_promise("1", timeout=1)
        answer: bytes = await promise
        answer = await promises.request("questions", "what?", timeout=1)
        print(answer)
        try:
            await (await promises.wait_for_new_promise("2"))
        except PromiseLost:
            promises.clear()
        except (InactiveSubscription, SubscriptionIsClosed, asyncio.TimeoutError):
            pass
        except (NameRefused, RedisUnavailable, MultiplexError, Ended):
            pass
        promises.close()
    shared("redis://localhost").close()
