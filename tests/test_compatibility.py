"""
What public projects rely on since channelsmultiplexer 0.0.3.
"""

from __future__ import annotations

import asyncio
import functools
import json

import pytest
from channels.generic.websocket import AsyncJsonWebsocketConsumer
from channels.routing import URLRouter
from channels.testing import WebsocketCommunicator
from django.urls import path, re_path

from channelsmultiplexer import AsyncJsonWebsocketDemultiplexer
from consumers import Echo, NeverAccepts, Refuses, SyncEcho


class Named(AsyncJsonWebsocketConsumer):
    """
    Answers every frame with an attribute of its own.
    """

    def __init__(self, name="unnamed"):
        super().__init__()
        self.name = name
        self.heard = []

    async def receive_json(self, content):
        self.heard.append(content)
        await self.send_json([self.name, *self.heard])


class Scope(AsyncJsonWebsocketConsumer):
    """
    Answers with what its scope has under the key it gets.
    """

    async def receive_json(self, content):
        await self.send_json(repr(self.scope.get(content)))


async def connect(application, **kwargs):
    """
    Return the client of a socket that was accepted.
    """
    client = WebsocketCommunicator(application, "/ws/", **kwargs)
    accepted, _ = await client.connect()
    assert accepted
    return client


async def ask(client, stream, payload):
    """
    Return the payload of the answer to a frame.
    """
    await client.send_json_to({"stream": stream, "payload": payload})
    answer = await client.receive_json_from()
    assert answer["stream"] == stream
    return answer["payload"]


# Imports and ways of mounting


def test_module_path():
    """The class is importable from the package and from its demultiplexer module."""
    from channelsmultiplexer.demultiplexer import (
        AsyncJsonWebsocketDemultiplexer as Demultiplexer,
    )

    assert Demultiplexer is AsyncJsonWebsocketDemultiplexer


async def test_subclass():
    """A subclass's dict of applications says what its streams are."""

    class Demultiplexer(AsyncJsonWebsocketDemultiplexer):
        applications = {"echo": Echo.as_asgi(), "named": Named.as_asgi(name="a")}

    client = await connect(Demultiplexer.as_asgi())
    assert await ask(client, "echo", {"hello": "world"}) == {"hello": "world"}
    assert await ask(client, "named", 1) == ["a", 1]
    await client.disconnect()


async def test_as_asgi_with_applications():
    """Applications can be named where the demultiplexer is mounted."""
    client = await connect(AsyncJsonWebsocketDemultiplexer.as_asgi(echo=Echo.as_asgi()))
    assert await ask(client, "echo", 1) == 1
    await client.disconnect()


async def test_instance():
    """An instance is an ASGI application, for several sockets at once."""
    application = AsyncJsonWebsocketDemultiplexer(echo=Echo.as_asgi())
    one, two = await connect(application), await connect(application)
    await one.send_json_to({"stream": "echo", "payload": "one"})
    assert await ask(two, "echo", "two") == "two"
    assert (await one.receive_json_from())["payload"] == "one"
    await one.disconnect()
    assert await ask(two, "echo", "still") == "still"
    await two.disconnect()


async def test_as_asgi_of_an_instance():
    """An instance's as_asgi() serves the instance's applications."""
    demultiplexer = AsyncJsonWebsocketDemultiplexer(echo=Named(name="b").as_asgi())
    client = await connect(demultiplexer.as_asgi(more=Echo.as_asgi()))
    assert await ask(client, "echo", 1) == ["unnamed", 1]
    assert await ask(client, "more", 2) == 2
    await client.disconnect()


async def test_no_leak_between_instances():
    """What is given to one demultiplexer never appears on another."""

    class Demultiplexer(AsyncJsonWebsocketDemultiplexer):
        applications = {"echo": Echo.as_asgi()}

    await (await connect(Demultiplexer.as_asgi(one=Echo.as_asgi()))).disconnect()
    client = await connect(Demultiplexer.as_asgi(two=Echo.as_asgi()))
    await client.send_json_to({"stream": "one", "payload": 1})
    assert "unknown-stream" in await client.receive_from()
    assert await ask(client, "two", 2) == 2
    await client.disconnect()
    assert list(Demultiplexer.applications) == ["echo"]
    assert AsyncJsonWebsocketDemultiplexer.applications == {}


# Values


async def test_url_router():
    """A URLRouter can serve a stream, by the path of the socket."""
    router = URLRouter([path("ws/", Echo.as_asgi())])
    client = await connect(AsyncJsonWebsocketDemultiplexer.as_asgi(echo=router))
    assert await ask(client, "echo", 1) == 1
    await client.disconnect()


async def test_under_a_url_router():
    """An application below a URLRouter sees the kwargs of the socket's route."""
    demultiplexer = AsyncJsonWebsocketDemultiplexer.as_asgi(scope=Scope.as_asgi())
    client = await connect(URLRouter([re_path(r"^(?P<name>\w+)/$", demultiplexer)]))
    assert "'kwargs': {'name': 'ws'}" in await ask(client, "scope", "url_route")
    await client.disconnect()


async def test_middleware():
    """An application may be wrapped in middleware."""

    async def middleware(scope, receive, send):
        await Scope.as_asgi()({**scope, "tenant": 7}, receive, send)

    client = await connect(AsyncJsonWebsocketDemultiplexer.as_asgi(scope=middleware))
    assert await ask(client, "scope", "tenant") == "7"
    await client.disconnect()


async def test_consumer_class():
    """A consumer's class can serve a stream."""
    client = await connect(AsyncJsonWebsocketDemultiplexer.as_asgi(echo=Echo))
    assert await ask(client, "echo", 1) == 1
    await client.disconnect()


async def test_consumer_instance():
    """A consumer can serve a stream: each socket gets a fresh copy."""
    application = AsyncJsonWebsocketDemultiplexer.as_asgi(named=Named(name="c"))
    one, two = await connect(application), await connect(application)
    assert await ask(one, "named", 1) == ["c", 1]
    assert await ask(two, "named", 2) == ["c", 2]
    await one.disconnect()
    await two.disconnect()


async def test_double_callable():
    """An ASGI 2 application can serve a stream."""

    class Double:
        def __init__(self, scope):
            self.scope = scope

        async def __call__(self, receive, send):
            await Echo.as_asgi()(self.scope, receive, send)

    client = await connect(AsyncJsonWebsocketDemultiplexer.as_asgi(echo=Double))
    assert await ask(client, "echo", 1) == 1
    await client.disconnect()


async def test_partial():
    """A partial of an application can serve a stream."""
    application = functools.partial(Echo.as_asgi())
    client = await connect(AsyncJsonWebsocketDemultiplexer.as_asgi(echo=application))
    assert await ask(client, "echo", 1) == 1
    await client.disconnect()


async def test_no_applications():
    """A demultiplexer without applications refuses the socket."""
    client = WebsocketCommunicator(AsyncJsonWebsocketDemultiplexer.as_asgi(), "/")
    accepted, _ = await client.connect()
    assert not accepted
    await client.disconnect()


@pytest.mark.parametrize("name", ["users.orgplayer", "a b", "ü", "self", "self.x/y"])
async def test_any_name(name):
    """Any string is a stream's name."""
    client = await connect(AsyncJsonWebsocketDemultiplexer.as_asgi(**{name: Echo}))
    assert await ask(client, name, 1) == 1
    await client.disconnect()


async def test_sync_consumer():
    """A synchronous consumer can serve a stream."""
    client = await connect(AsyncJsonWebsocketDemultiplexer.as_asgi(echo=SyncEcho))
    assert await ask(client, "echo", 1) == 1
    await client.disconnect()


# The scope


async def test_demultiplexer_cls():
    """Applications find the class, and its applications, in their scope."""
    seen = []

    async def application(scope, receive, send):
        seen.append(scope["demultiplexer_cls"])
        await send({"type": "websocket.accept"})

    class Demultiplexer(AsyncJsonWebsocketDemultiplexer):
        applications = {"peer": Echo, "a": application}

    client = WebsocketCommunicator(Demultiplexer.as_asgi(), "/")
    await client.connect()
    await client.disconnect()
    assert seen == [Demultiplexer]
    assert seen[0].applications["peer"] is Echo


async def test_scope_copies():
    """Each application has a scope of its own, with the same objects in it."""
    scopes = []

    async def application(scope, receive, send):
        scopes.append(scope)
        scope["mine"] = len(scopes)
        await send({"type": "websocket.accept"})

    client = WebsocketCommunicator(
        AsyncJsonWebsocketDemultiplexer.as_asgi(a=application, b=application), "/"
    )
    shared = {"user": object(), "session": object(), "state": {}}
    client.scope.update(shared)
    await client.connect()
    await client.disconnect()
    assert [scope["mine"] for scope in scopes] == [1, 2]
    for scope in scopes:
        assert all(scope[key] is value for key, value in shared.items())
    assert "mine" not in client.scope


# Overrides


async def test_websocket_connect_changes_the_scope():
    """What websocket_connect() does to self.scope is what applications see."""

    class Demultiplexer(AsyncJsonWebsocketDemultiplexer):
        applications = {"scope": Scope}

        async def websocket_connect(self, message):
            self.scope["tenant"] = "t1"
            await super().websocket_connect(message)

    client = await connect(Demultiplexer.as_asgi())
    assert await ask(client, "scope", "tenant") == "'t1'"
    await client.disconnect()


async def test_websocket_connect_closes():
    """websocket_connect() can refuse the socket before an application starts."""

    class Demultiplexer(AsyncJsonWebsocketDemultiplexer):
        applications = {"echo": Echo}

        async def websocket_connect(self, message):
            await self.close(code=4401)
            await super().websocket_connect(message)

    client = WebsocketCommunicator(Demultiplexer.as_asgi(), "/")
    assert await client.connect() == (False, 4401)
    await client.disconnect()


async def test_websocket_receive():
    """websocket_receive() sees every frame, and may send envelopes of its own."""

    class Demultiplexer(AsyncJsonWebsocketDemultiplexer):
        applications = {"echo": Echo}

        async def websocket_receive(self, message):
            try:
                await super().websocket_receive(message)
            except ValueError as error:
                payload = {"errors": [str(error)], "response_status": 400}
                await self.send_json({"stream": None, "payload": payload})

    client = await connect(Demultiplexer.as_asgi())
    assert await ask(client, "echo", 1) == 1
    for frame in ("no json", '{"stream": "other", "payload": 1}', '{"payload": 1}'):
        await client.send_to(text_data=frame)
        answer = await client.receive_json_from()
        assert answer["stream"] is None
        assert answer["payload"]["errors"][0].startswith("Invalid multiplexed frame")
    await client.disconnect()


async def test_receive_json():
    """receive_json() gets the whole envelope, and raises ValueError for a bad one."""
    seen = []

    class Demultiplexer(AsyncJsonWebsocketDemultiplexer):
        applications = {"echo": Echo}

        async def receive_json(self, content, **kwargs):
            seen.append(content)
            with pytest.raises(ValueError, match=r"^Invalid multiplexed frame"):
                await super().receive_json({"stream": "echo"}, **kwargs)
            await super().receive_json(content, **kwargs)

    client = await connect(Demultiplexer.as_asgi())
    assert await ask(client, "echo", [1, None]) == [1, None]
    assert seen == [{"stream": "echo", "payload": [1, None]}]
    await client.disconnect()


async def test_accept_with_the_last():
    """websocket_accept() can accept the socket with the last application."""

    class Demultiplexer(AsyncJsonWebsocketDemultiplexer):
        applications = {"a": Echo, "b": Echo, "c": Echo}

        async def websocket_accept(self, message, stream_name):
            others = set(self.applications) - {stream_name}
            is_last = self.applications_accepting_frames == others
            self.applications_accepting_frames.add(stream_name)
            if is_last:
                await self.accept()

    client = await connect(Demultiplexer.as_asgi())
    for name in "abc":
        assert await ask(client, name, name) == name
    await client.disconnect()


async def test_accept_without_super():
    """websocket_accept() can call super() for some applications only."""

    class Demultiplexer(AsyncJsonWebsocketDemultiplexer):
        applications = {"quiet": Echo, "echo": Echo}

        async def websocket_accept(self, message, stream_name):
            if stream_name == "quiet":
                self.applications_accepting_frames.add(stream_name)
            else:
                await super().websocket_accept(message, stream_name)

    client = await connect(Demultiplexer.as_asgi())
    for name in ("quiet", "echo"):
        assert await ask(client, name, name) == name
    await client.disconnect()


async def test_websocket_send():
    """websocket_send() sees what an application sends, and may change it."""

    class Demultiplexer(AsyncJsonWebsocketDemultiplexer):
        applications = {"echo": Echo}

        async def websocket_send(self, message, stream_name):
            assert stream_name == "echo"
            message = {**message, "text": message["text"].upper()}
            await super().websocket_send(message, stream_name)

    client = await connect(Demultiplexer.as_asgi())
    assert await ask(client, "echo", "loud") == "LOUD"
    await client.disconnect()


async def test_websocket_close():
    """websocket_close() sees which stream closes, and may keep the socket open."""
    seen = []

    class Demultiplexer(AsyncJsonWebsocketDemultiplexer):
        applications = {"a": Refuses, "echo": Echo}

        async def websocket_close(self, message, stream_name):
            seen.append((message["code"], stream_name, self.closing))
            await super().websocket_close(message, stream_name)

    client = await connect(Demultiplexer.as_asgi())
    assert await ask(client, "echo", 1) == 1
    assert seen == [(4403, "a", False)]
    await client.disconnect()


async def test_websocket_disconnect():
    """websocket_disconnect() and disconnect() see the end, and applications too."""
    seen = []

    class Demultiplexer(AsyncJsonWebsocketDemultiplexer):
        applications = {"echo": Echo}

        async def websocket_disconnect(self, message):
            seen.append(message["code"])
            await super().websocket_disconnect(message)

        async def disconnect(self, code):
            assert self.closing
            seen.append(code)
            await super().disconnect(code)

    client = await connect(Demultiplexer.as_asgi())
    await client.disconnect(4001)
    assert seen == [4001, 4001]


async def test_encode_and_decode_json():
    """encode_json() and decode_json() are used for all content when overridden."""

    class Demultiplexer(AsyncJsonWebsocketDemultiplexer):
        applications = {"echo": Echo}

        @classmethod
        async def decode_json(cls, text_data):
            return json.loads(text_data.replace("<", "["))

        @classmethod
        async def encode_json(cls, content):
            return json.dumps(content, sort_keys=True)

    client = await connect(Demultiplexer.as_asgi())
    await client.send_to(text_data='{"stream": "echo", "payload": <0]}')
    assert await client.receive_from() == '{"payload": [0], "stream": "echo"}'
    await client.disconnect()


async def test_frames_are_not_decoded():
    """While no hook is overridden a payload passes as it was written."""

    class Text(AsyncJsonWebsocketConsumer):
        async def receive(self, text_data=None, bytes_data=None):
            assert text_data == '{"a":  1.0e2,"a":"\\u00e9"}'
            await self.send(text_data)

    client = await connect(AsyncJsonWebsocketDemultiplexer.as_asgi(text=Text))
    payload = '{"a":  1.0e2,"a":"\\u00e9"}'
    await client.send_to(text_data=f'{{"stream": "text", "payload": {payload} }}')
    assert await client.receive_from() == f'{{"stream":"text","payload":{payload}}}'
    await client.disconnect()


# What is there to call


async def test_application_close_timeout():
    """application_close_timeout is 5 seconds, unless a subclass says otherwise."""
    ended = asyncio.Event()

    class Slow(Echo):
        async def disconnect(self, code):
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

    class Demultiplexer(AsyncJsonWebsocketDemultiplexer):
        application_close_timeout = 0.01
        applications = {"slow": Slow}

    assert AsyncJsonWebsocketDemultiplexer.application_close_timeout == 5
    client = await connect(Demultiplexer.as_asgi())
    await client.disconnect()
    assert ended.is_set()


async def test_send_upstream():
    """send_upstream() reaches the application of one stream, or of all."""

    class Heard(Echo):
        async def news_flash(self, message):
            await self.send_json(message["text"])

    class Demultiplexer(AsyncJsonWebsocketDemultiplexer):
        applications = {"a": Heard, "b": Heard, "ask": Echo}

        async def websocket_receive(self, message):
            news = {"type": "news.flash", "text": "one"}
            await self.send_upstream(news, "a")
            await self.send_upstream({**news, "text": "all"}, stream_name="b")
            with pytest.raises(ValueError, match=r"^Invalid multiplexed frame"):
                await self.send_upstream(news, "other")

    client = await connect(Demultiplexer.as_asgi())
    await client.send_to(text_data="go")
    frames = [await client.receive_json_from() for _ in "ab"]
    assert sorted(frame["stream"] + frame["payload"] for frame in frames) == [
        "aone",
        "ball",
    ]
    await client.disconnect()


async def test_send_upstream_to_all():
    """send_upstream() without a stream reaches every application."""

    class Demultiplexer(AsyncJsonWebsocketDemultiplexer):
        applications = {"a": Echo, "b": Echo}

        async def websocket_receive(self, message):
            await self.send_upstream(message)

    client = await connect(Demultiplexer.as_asgi())
    await client.send_to(text_data="5")
    frames = [await client.receive_json_from() for _ in "ab"]
    assert sorted(frame["stream"] for frame in frames) == ["a", "b"]
    await client.disconnect()


# Messages of an application's own type


class Speaks(AsyncJsonWebsocketConsumer):
    """
    Sends the message it gets, as it is, and tells if that was refused.
    """

    async def receive_json(self, content):
        try:
            await self.base_send(content)
        except ValueError:
            await self.send_json("refused")


async def test_own_type():
    """A message of an application's own type gets to the handler of that name."""

    class Demultiplexer(AsyncJsonWebsocketDemultiplexer):
        applications = {"speaks": Speaks}

        async def chat_badge(self, message, stream_name):
            await self.send_json({"stream": stream_name, "payload": message["count"]})

    client = await connect(Demultiplexer.as_asgi())
    assert await ask(client, "speaks", {"type": "chat.badge", "count": 3}) == 3
    await client.disconnect()


async def test_own_type_without_a_handler():
    """A message of an application's own type goes on to the server without one."""
    client = await connect(AsyncJsonWebsocketDemultiplexer.as_asgi(speaks=Speaks))
    message = {"type": "telegram.send", "text": "hi"}
    await client.send_json_to({"stream": "speaks", "payload": message})
    assert await client.receive_output() == message
    await client.disconnect()


@pytest.mark.parametrize(
    "name",
    [
        "send.upstream",
        "close",
        "receive.json",
        "websocket.receive",
        "websocket.http.response.start",
        "applications",
        "base.send",
        "_send",
        "note",
    ],
)
async def test_own_type_refused(name):
    """A type that names anything else on the class is refused."""

    class Demultiplexer(AsyncJsonWebsocketDemultiplexer):
        applications = {"speaks": Speaks, "never": NeverAccepts}
        note = "not a handler"

    client = await connect(Demultiplexer.as_asgi())
    assert await ask(client, "speaks", {"type": name}) == "refused"
    await client.disconnect()
