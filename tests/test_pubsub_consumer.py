"""
Consumers that hear what other programs publish in Redis.
"""

from __future__ import annotations

import asyncio
import gc
import textwrap
import weakref
from pathlib import Path

import pytest
from channels.generic.websocket import AsyncJsonWebsocketConsumer
from channels.testing import WebsocketCommunicator

from channelsmultiplexer import AsyncJsonWebsocketDemultiplexer
from channelsmultiplexer.pubsub import NameRefused, RedisListener, shared
from recorder import guarded


class PriceConsumer(RedisListener, AsyncJsonWebsocketConsumer):
    async def connect(self):
        await self.accept()
        await self.listen("prices.*", "news")
        await self.send_json("listening")

    async def receive_json(self, content):
        if content == "stop":
            await self.unlisten("prices.*")
        await self.send_json({"echo": content})

    async def redis_message(self, event):
        # Another handler would come in between, if it could.
        await asyncio.sleep(0)
        if event["data"] == b"raise":
            raise ValueError("a handler is at fault")
        await self.send_json([event["channel"].decode(), event["data"].decode()])

    async def redis_gap(self, event):
        await self.send_json({"gap": event["dropped"]})


@pytest.fixture
def consumer(redis):
    """
    Return the consumer, which listens to the test's server.
    """
    return type("Consumer", (PriceConsumer,), {"redis_url": redis.url})


@pytest.fixture(autouse=True)
async def _closed(redis):
    yield
    await shared(redis.url).aclose()


async def connected(application):
    client = WebsocketCommunicator(application, "/")
    assert (await client.connect())[0]
    assert await client.receive_json_from() == "listening"
    return client


async def test_messages_come_to_handlers(redis, consumer):
    """What is published to channels and patterns comes to the handler, in order."""
    client = await connected(consumer.as_asgi())
    for number in range(20):
        redis.call("PUBLISH", "news" if number % 3 else "prices.eur", number)
    got = [(await client.receive_json_from())[1] for _ in range(20)]
    assert got == [str(number) for number in range(20)]
    await client.disconnect()


async def test_handlers_run_one_at_a_time(redis, consumer):
    """Frames and Redis messages are handled one after the other."""
    client = await connected(consumer.as_asgi())
    redis.call("PUBLISH", "news", "1")
    await client.send_json_to("hi")
    got = [await client.receive_json_from() for _ in range(2)]
    assert sorted(got, key=str) == [["news", "1"], {"echo": "hi"}]
    await client.disconnect()


async def test_unsubscribed_at_the_end(redis, consumer):
    """When the stream ends, Redis is told that nobody listens."""
    client = await connected(consumer.as_asgi())
    assert redis.subscribers("news") == 1
    await client.disconnect()
    async with shared(redis.url).subscribe("settled"):
        assert redis.subscribers("news") == 0
        assert redis.call("PUBSUB", "NUMPAT") == 0


async def test_unlisten(redis, consumer):
    """A consumer can stop to listen."""
    client = await connected(consumer.as_asgi())
    await client.send_json_to("stop")
    assert await client.receive_json_from() == {"echo": "stop"}
    assert redis.call("PUBSUB", "NUMPAT") == 0
    await client.disconnect()


async def test_unlisten_to_what_is_on_its_way(redis, consumer):
    """A message that came before unlisten(), and waits, comes no more."""

    class Waiting(consumer):
        async def receive_json(self, content):
            redis.call("PUBLISH", "prices.eur", "late")
            # When the answers to these have come, so has it.
            for name in ("settled", "settled, too"):
                async with shared(redis.url).subscribe(name):
                    pass
            await super().receive_json("stop")

    client = await connected(Waiting.as_asgi())
    await client.send_json_to("")
    assert await client.receive_json_from() == {"echo": "stop"}
    redis.call("PUBLISH", "news", "1")
    assert await client.receive_json_from() == ["news", "1"]
    await client.disconnect()


async def test_fast_feed(redis, consumer):
    """A feed that is faster than its handler doesn't keep the client waiting."""

    class Slow(consumer):
        async def redis_message(self, event):
            if event["data"] == b"first":
                await client.send_json_to("hi")
                for number in range(20):
                    redis.call("PUBLISH", "news", number)
                async with shared(redis.url).subscribe("settled"):
                    pass  # Now they have come, too.
            await super().redis_message(event)

    client = await connected(Slow.as_asgi())
    redis.call("PUBLISH", "news", "first")
    assert {"echo": "hi"} in [await client.receive_json_from() for _ in range(3)]
    await client.disconnect()


async def test_fast_client(redis, consumer):
    """A client that is faster than its handler doesn't keep Redis waiting."""

    class Slow(consumer):
        async def receive_json(self, content):
            if content == "first":
                redis.call("PUBLISH", "news", "1")
                for number in range(20):
                    await client.send_json_to(number)
                async with shared(redis.url).subscribe("settled"):
                    pass  # Now it has come, too.
            await super().receive_json(content)

    client = await connected(Slow.as_asgi())
    await client.send_json_to("first")
    assert ["news", "1"] in [await client.receive_json_from() for _ in range(3)]
    await client.disconnect()


async def test_handler_that_raises(redis, consumer):
    """A Redis handler that raises ends its consumer, as any handler does."""
    client = await connected(consumer.as_asgi())
    redis.call("PUBLISH", "news", "raise")
    with pytest.raises(ValueError, match="at fault"):
        await client.receive_output()


async def test_gap_comes_to_its_handler(redis, consumer):
    """A lost link is told to the handler for gaps, and what was listened to is back."""
    client = await connected(consumer.as_asgi())
    redis.kill_subscribers()
    assert await client.receive_json_from() == {"gap": None}
    async with shared(redis.url).subscribe("news"):
        redis.call("PUBLISH", "news", "again")
        assert await client.receive_json_from() == ["news", "again"]
    await client.disconnect()


async def test_refused(redis, consumer):
    """A refused name is raised from listen()."""
    redis.call("ACL", "SETUSER", "limited", "reset", "on", ">pw", "+@all", "&ok*")
    url = f"redis://limited:pw@127.0.0.1:{redis.port}"
    limited = type("Limited", (consumer,), {"redis_url": url})
    client = WebsocketCommunicator(limited.as_asgi(), "/")
    await client.connect()
    with pytest.raises(NameRefused):
        await client.receive_output()
    await shared(url).aclose()


async def test_listen_to_no_name(consumer):
    """A list in place of names is refused by its type."""

    class Wrong(consumer):
        async def connect(self):
            await self.listen(["news"])

    client = WebsocketCommunicator(Wrong.as_asgi(), "/")
    with pytest.raises(TypeError, match="list"):
        await client.connect()


async def test_streams_share_one_connection(redis, consumer):
    """All streams of all sockets are one connection to Redis."""
    streams = [f"s{number}" for number in range(5)]
    application = AsyncJsonWebsocketDemultiplexer.as_asgi(
        **dict.fromkeys(streams, consumer.as_asgi())
    )
    clients = [WebsocketCommunicator(application, "/") for _ in range(20)]
    for client in clients:
        await client.connect()
        heard = [await client.receive_json_from() for _ in streams]
        assert {frame["payload"] for frame in heard} == {"listening"}
    assert len(redis.clients()) == 1
    redis.call("PUBLISH", "prices.eur", "1")
    for client in clients:
        got = [await client.receive_json_from() for _ in streams]
        assert sorted(frame["stream"] for frame in got) == streams
        await guarded(client.disconnect())


def test_event_loops_that_end(redis):
    """An event loop that has ended isn't kept by what was shared in it."""

    async def listen():
        await shared(redis.url).connect()
        return weakref.ref(asyncio.get_running_loop())

    loops = [asyncio.run(listen()) for _ in range(3)]
    gc.collect()
    assert [loop() for loop in loops[:2]] == [None, None]


async def test_closed_as_the_client_leaves(redis, consumer, caplog):
    """A Multiplexer that is closed while a handler is at work is no news to it."""
    at_work = asyncio.Event()

    class Slow(consumer):
        async def redis_message(self, event):
            at_work.set()
            await asyncio.sleep(0.05)

    client = await connected(Slow.as_asgi())
    redis.call("PUBLISH", "news", "1")
    await guarded(at_work.wait())
    await shared(redis.url).aclose()
    await client.disconnect()
    gc.collect()
    await asyncio.sleep(0)
    assert not [r for r in caplog.records if r.name == "asyncio"]


async def test_readme(redis):
    """The README's section about Redis runs as it stands."""
    text = (Path(__file__).parent.parent / "README.rst").read_text()
    section = text.partition("\nRedis\n=====")[2].partition(".. code-block:: python")[2]
    block = section[: section.index("\n\nTesting\n")]
    names = {"AsyncJsonWebsocketConsumer": AsyncJsonWebsocketConsumer}
    exec(textwrap.dedent(block), names)
    names["PriceConsumer"].redis_url = redis.url
    client = WebsocketCommunicator(names["PriceConsumer"].as_asgi(), "/")
    await client.connect()
    # Its listen() is in connect(), after accept().
    while not redis.call("PUBLISH", "prices.eur", "1.07"):  # noqa: ASYNC110
        await asyncio.sleep(0)
    assert await client.receive_from() == "1.07"
    await client.disconnect()
