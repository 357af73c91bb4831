"""
The demo: its streams, its page and its socket.
"""

import asyncio
import contextlib
import io
import os

import pytest
from channels.testing import WebsocketCommunicator
from django.contrib.auth.models import AnonymousUser, User
from django.contrib.staticfiles import finders
from django.core.management import CommandError, call_command
from django.urls import reverse

import redis_server
from channelsmultiplexer.pubsub import shared
from channelsmultiplexer.testing import MultiplexCommunicator, Refused
from demo.asgi import application
from demo.consumers import MetricsConsumer, PricesConsumer, RoomConsumer
from demo.models import Note
from demo.routing import DemoDemultiplexer

# Of every test, since Channels looks after database connections at every event, also
# of a consumer that has none.
pytestmark = pytest.mark.django_db(transaction=True)

# Nobody listens there.
NO_REDIS = "redis://127.0.0.1:1"


def visitor(user=None, **kwargs):
    """
    Return a visitor's end of the demo's socket.
    """
    application = DemoDemultiplexer.as_asgi()
    return MultiplexCommunicator(application, user=user or AnonymousUser(), **kwargs)


@pytest.fixture
async def socket():
    async with visitor() as socket:
        yield socket


async def enter(socket, room):
    """
    Open the stream of a room and take its welcome.
    """
    stream = await socket.open(f"rooms/{room}/")
    assert (await stream.receive_json())["event"] == "welcome"
    return stream


async def test_echo(socket):
    """The echo stream answers a frame with itself."""
    echo = await socket.open("echo")
    await echo.send_text("[1, 2]")
    assert await echo.receive_text() == "[1, 2]"
    await echo.send_bytes(b"\0")
    assert await echo.receive_bytes() == b"\0"


async def test_metrics():
    """The metrics stream sends a plausible sample when its interval is over."""
    metrics = WebsocketCommunicator(MetricsConsumer.as_asgi(interval=0.01), "/")
    await metrics.connect()
    sample = await metrics.receive_json_from()
    assert sample["process"] == os.getpid()
    assert 0 <= sample["cpu"] <= 100
    assert 0 < sample["memory"] <= 100
    assert sample["received"] >= 0
    assert sample["sent"] >= 0
    await metrics.disconnect()


async def test_metrics_end():
    """The metrics stream leaves no task behind when it ends."""
    metrics = WebsocketCommunicator(MetricsConsumer.as_asgi(), "/")
    await metrics.connect()
    await metrics.disconnect()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_room(socket):
    """A message in a room reaches its sender and everybody else there."""
    async with visitor() as other:
        streams = [await enter(end, "lobby") for end in (socket, other)]
        await streams[0].send_json({"name": "Ann", "text": "Hello"})
        for stream in streams:
            message = await stream.receive_json()
            assert message == {"event": "message", "name": "Ann", "text": "Hello"}


async def test_rooms_on_one_socket(socket):
    """Of two rooms on one socket each has its own messages."""
    lobby, kitchen = await enter(socket, "lobby"), await enter(socket, "kitchen")
    await lobby.send_json({"name": "Ann", "text": "Hello"})
    assert (await lobby.receive_json())["text"] == "Hello"
    await kitchen.send_json({"name": "Ann", "text": "Coffee"})
    assert (await kitchen.receive_json())["text"] == "Coffee"
    assert not lobby.unread


async def test_room_welcome():
    """A room welcomes a user by name."""
    async with visitor(User(username="ann")) as socket:
        room = await socket.open("rooms/lobby/")
        assert await room.receive_json() == {"event": "welcome", "user": "ann"}


@pytest.mark.parametrize(
    ("room", "reason"),
    [
        ("staff", "This room is for staff."),
        ("a" * 33, "The name of a room has at most 32 characters."),
    ],
)
async def test_room_refusal(socket, room, reason):
    """A room that may not be entered says why."""
    with pytest.raises(Refused) as refused:
        await socket.open(f"rooms/{room}/")
    assert (refused.value.code, refused.value.reason) == (4403, reason)


async def test_staff_room():
    """The staff's room is open to them."""
    async with visitor(User(username="ann", is_staff=True)) as socket:
        await enter(socket, "staff")


async def test_too_many_rooms(socket):
    """A socket has so many streams; one more is refused until another ends."""
    room, *_ = [await enter(socket, number) for number in range(12)]
    with pytest.raises(Refused) as refused:
        await socket.open("rooms/lobby/")
    assert refused.value.code == 4429
    await room.close()
    await room.wait_closed(1000)
    await enter(socket, "lobby")


@pytest.mark.parametrize(
    "content",
    [
        {"name": "", "text": "Hello"},
        {"name": "A" * (RoomConsumer.NAME_LENGTH + 1), "text": "Hello"},
        {"name": "Ann", "text": ""},
        {"name": "Ann", "text": "A" * (RoomConsumer.TEXT_LENGTH + 1)},
        {"name": "Ann", "text": None},
        ["Ann", "Hello"],
    ],
)
async def test_room_refused_message(socket, content):
    """A room refuses what is not a name and a text of limited length."""
    room = await enter(socket, "lobby")
    await room.send_json(content)
    assert (await room.receive_json())["event"] == "refused"


async def test_bare_client(socket):
    """A client of the bare dialect has every stream, and one room: the lobby."""
    lobby = await enter(socket, "lobby")
    async with visitor(dialect="bare") as bare:
        await bare.stream("rooms").send_json({"name": "Bob", "text": "Hello"})
        assert (await lobby.receive_json())["name"] == "Bob"
        await bare.stream("echo").send_json([1, 2])
        assert await bare.stream("echo").receive_json() == [1, 2]
        assert (await bare.stream("notes").receive_json())["event"] == "list"


async def test_notes(socket):
    """The notes stream adds and deletes a note, and announces both."""
    notes = await socket.open("notes")
    assert await notes.receive_json() == {"event": "list", "notes": []}
    await notes.send_json({"action": "add", "text": "Milk"})
    added = await notes.receive_json()
    note = await Note.objects.aget()
    assert added == {"event": "added", "note": {"id": note.pk, "text": "Milk"}}
    await notes.send_json({"action": "delete", "id": note.pk})
    assert await notes.receive_json() == {"event": "deleted", "id": note.pk}
    assert not await Note.objects.aexists()


async def test_notes_list(socket):
    """The notes stream begins with all notes, the newest first."""
    first = await Note.objects.acreate(text="Milk")
    second = await Note.objects.acreate(text="Bread")
    notes = await socket.open("notes")
    assert (await notes.receive_json())["notes"] == [
        {"id": second.pk, "text": "Bread"},
        {"id": first.pk, "text": "Milk"},
    ]


@pytest.mark.parametrize(
    "content",
    [
        {"action": "add", "text": ""},
        {"action": "add", "text": "A" * 201},
        {"action": "add"},
        {"action": "delete", "id": "1"},
        {"action": "delete", "id": 1},
        {"action": "delete", "id": 2**70},
        None,
    ],
)
async def test_notes_refusal(socket, content):
    """The notes stream refuses an action that cannot be carried out."""
    notes = await socket.open("notes")
    await notes.receive_json()
    await notes.send_json(content)
    assert (await notes.receive_json())["event"] == "refused"
    assert not await Note.objects.aexists()


async def test_notes_limit(socket):
    """The notes stream refuses a note beyond the limit."""
    await Note.objects.abulk_create(Note(text="Milk") for _ in range(Note.LIMIT))
    notes = await socket.open("notes")
    await notes.receive_json()
    await notes.send_json({"action": "add", "text": "Bread"})
    assert (await notes.receive_json())["event"] == "refused"
    assert await Note.objects.acount() == Note.LIMIT


@contextlib.asynccontextmanager
async def prices_of(url, settings):
    """
    Have a client of the prices in the Redis of a URL.
    """
    settings.REDIS_URL = url
    consumer = type("Consumer", (PricesConsumer,), {"redis_url": url})
    yield WebsocketCommunicator(consumer.as_asgi(), "/")
    await shared(url).aclose()


async def test_prices(redis, settings):
    """The prices stream sends what is published, as it was published."""
    async with prices_of(redis.url, settings) as prices:
        await prices.connect()
        redis.call("PUBLISH", "prices.tea", "3.10")
        message = {"event": "price", "name": "tea", "price": "3.10"}
        assert await prices.receive_json_from() == message
        await prices.disconnect()


async def test_prices_redis_down(settings):
    """The prices stream is refused, for now, when Redis doesn't answer."""
    async with prices_of(NO_REDIS, settings) as prices:
        assert await prices.connect() == (False, 1013)


async def test_prices_without_redis(socket, settings):
    """The prices stream of a server without Redis opens, and says what is missing."""
    settings.REDIS_URL = ""
    prices = await socket.open("prices")
    message = await prices.receive_json()
    assert message["event"] == "unavailable"
    assert "REDIS_URL" in message["reason"]


@pytest.mark.parametrize(
    ("url", "reason"),
    [("", "Set REDIS_URL"), (NO_REDIS, "Redis doesn't answer")],
)
def test_publish_prices_refusal(settings, url, reason):
    """Prices can't be published without Redis, and the command says so."""
    settings.REDIS_URL = url
    with pytest.raises(CommandError, match=reason):
        call_command("publish_prices")


def test_publish_prices_outage(settings):
    """Prices are published again after an outage."""
    told = []

    class Shell(io.StringIO):
        def write(self, text):
            told.append(text.split(":")[0].strip())
            if "Publishing" in text:
                redis.stop()
            elif "doesn't answer" in text:
                redis.start()
            elif "again" in text:
                raise KeyboardInterrupt

    with redis_server.server() as redis:
        settings.REDIS_URL = redis.url
        call_command("publish_prices", stdout=Shell())
    assert told[1:] == ["Redis doesn't answer", "Redis answers again."]


def test_page(client):
    """The page renders."""
    response = client.get(reverse("index"))
    assert response.status_code == 200
    assert "Many streams, 1 WebSocket" in response.content.decode()


@pytest.mark.parametrize(
    "path",
    [
        "channelsmultiplexer/multiplex.js",
        "demo/demo.css",
        "demo/demo.js",
        "demo/icon.svg",
    ],
)
def test_page_static_files(client, path):
    """The page refers to a static file that there is."""
    assert f'"/static/{path}"' in client.get(reverse("index")).content.decode()
    assert finders.find(path) is not None


def test_migrations():
    """The migrations are complete: makemigrations, which exits if not, returns."""
    call_command("makemigrations", "--check", "--dry-run", verbosity=0)


@pytest.mark.parametrize(
    ("origin", "accepted"),
    [(b"http://localhost:8000", True), (b"https://example.com", False)],
)
async def test_origin(origin, accepted):
    """The socket opens for a page of this site and for no other."""
    headers = [(b"origin", origin)]
    socket = WebsocketCommunicator(application, "/ws/", headers)
    assert (await socket.connect())[0] is accepted
    await socket.disconnect()
