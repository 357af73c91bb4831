"""
Where Redis is, and how to log in.
"""

from __future__ import annotations

import asyncio
import traceback

import pytest
import redis.asyncio as aioredis
from redis import Redis
from redis.credentials import CredentialProvider

from channelsmultiplexer.pubsub import (
    Multiplexer,
    RedisUnavailable,
)
from recorder import guarded
from redis_server import debian_server, server


async def test_addresses(redis):
    """A server is named by URL, host and port, path of a socket, or a client."""
    client = aioredis.Redis(port=redis.port, client_name="like-me")
    for location in (
        redis.url,
        f"{redis.url}/3?client_name=me",
        ("127.0.0.1", redis.port),
        redis.socket_path,
        f"unix://{redis.socket_path}",
        client,
    ):
        async with Multiplexer(location) as mpx:
            assert await mpx.publish("a", "1") == 0
    await client.aclose()


async def test_like_a_client(redis):
    """A client of redis-py's lends its login, database and name, not its connection."""
    redis.call("ACL", "SETUSER", "user", "reset", "on", ">pw", "+@all", "&*")
    options = {"username": "user", "password": "pw", "db": 3, "client_name": "like-me"}
    client = aioredis.Redis(port=redis.port, **options)
    async with Multiplexer(client) as mpx, mpx.subscribe("a"):
        (line,) = redis.clients()
        for word in (" user=user ", " db=3 ", " name=like-me "):
            assert word in line
    assert await client.ping()
    await client.aclose()


async def test_client_name_and_database(redis):
    """The connection is known by the client name, and in the database, asked for."""
    mpx = Multiplexer(redis.url, db=3, client_name="mine")
    async with mpx, mpx.subscribe("a"):
        (line,) = redis.clients()
    assert " name=mine " in line
    assert " db=3 " in line


async def test_keywords(redis):
    """A server is named by redis-py's keywords, too."""
    for options in (
        {"host": "127.0.0.1", "port": redis.port},
        {"unix_socket_path": redis.socket_path},
    ):
        async with Multiplexer(db=3, **options) as mpx, mpx.subscribe("a"):
            (line,) = redis.clients()
            assert " db=3 " in line
    assert repr(Multiplexer()) == "<Multiplexer of localhost:6379>"


@pytest.mark.parametrize("option", ["host", "port", "unix_socket_path"])
@pytest.mark.parametrize("location", ["redis://a", ("a", 1), "/a", aioredis.Redis()])
def test_two_places(location, option):
    """A second place beside the location is refused by name."""
    with pytest.raises(TypeError, match=option):
        Multiplexer(location, **{option: 1})


def test_database_of_url_and_keyword(redis):
    """A URL and a keyword that contradict each other are refused."""
    with pytest.raises(TypeError, match="db"):
        Multiplexer(f"{redis.url}/0", db=3)
    Multiplexer(f"{redis.url}/3", db=3)


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        (("127.0.0.1",), "a host and a port"),
        (["127.0.0.1", 6379], "got list"),
        (b"redis://a", "got bytes"),
        (Redis(), "asyncio"),
        ("localhost", "neither a URL nor the path"),
        ("localhost:6379", "neither a URL nor the path"),
    ],
)
def test_no_location(location, expected):
    """What is no place is refused where it is given, with what would be one."""
    with pytest.raises((TypeError, ValueError), match=expected):
        Multiplexer(location)


def test_replica():
    """A client of Sentinel's for replicas is refused: it would have the master."""
    with pytest.raises(ValueError, match="master_for"):
        Multiplexer(aioredis.Sentinel([("127.0.0.1", 1)]).slave_for("main"))


def test_client_with_options():
    """Options beside a client are refused by name."""
    with pytest.raises(TypeError, match="ssl"):
        Multiplexer(aioredis.Redis(), ssl=True)


# Logins


@pytest.fixture(scope="module")
def redis_with_password():
    """
    Return a Redis server that asks for the password pw.
    """
    with server("--requirepass", "pw") as one:
        yield one


async def test_wrong_password(redis):
    """A wrong password is raised to who waits, and logged."""
    with pytest.raises(RedisUnavailable, match="WRONGPASS"):
        async with Multiplexer(redis.url, username="who", password="wrong"):
            pass


async def test_nobody_there(caplog):
    """
    A server that isn't there is raised to who waits, and logged.

    RedisMPX's silent_initial_failure.
    """
    mpx = Multiplexer("redis://127.0.0.1:1")
    with pytest.raises(RedisUnavailable):
        await guarded(mpx.subscribe("a").__aenter__())
    assert "can't connect" in caplog.text
    promises = mpx.new_promise_subscription("p")
    with pytest.raises(RedisUnavailable):
        await guarded(promises.wait_for_activation())
    await mpx.aclose()


async def test_user_without_password(redis):
    """A user who needs no password logs in by name."""
    redis.call("ACL", "SETUSER", "nop", "reset", "on", "nopass", "+@all", "&*")
    place = f"127.0.0.1:{redis.port}"
    for mpx in (
        Multiplexer(f"redis://nop@{place}"),
        Multiplexer(f"redis://{place}", username="nop"),
    ):
        async with mpx, mpx.subscribe("a"):
            (line,) = redis.clients()
            assert " user=nop " in line


async def test_user_without_password_in_resp2():
    """So does one of a server without HELLO."""
    with server("--rename-command", "HELLO", "") as old:
        old.call("ACL", "SETUSER", "nop", "reset", "on", "nopass", "+@all", "&*")
        async with Multiplexer(old.url, username="nop") as mpx, mpx.subscribe("a"):
            (line,) = old.clients()
            assert " user=nop " in line


async def test_provider_without_coroutine(redis_with_password):
    """A credential provider of redis-py 5.0, which has no coroutine, is asked."""

    class Provider:
        def get_credentials(self):
            return ("pw",)

    url = redis_with_password.url
    async with Multiplexer(url, credential_provider=Provider()) as mpx:
        assert await mpx.publish("a", "1") == 0


async def test_wrong_password_then_right(redis):
    """It goes on trying, with the credentials that the provider gives then."""
    redis.call("ACL", "SETUSER", "user", "reset", "on", ">new", "+@all", "&*")
    passwords = iter(["old", "old"])

    class Provider(CredentialProvider):
        def get_credentials(self):
            return "user", next(passwords, "new")

    mpx = Multiplexer(redis.url, credential_provider=Provider())
    with pytest.raises(RedisUnavailable):
        await guarded(mpx.connect())
    await guarded(mpx.connected_event.wait())
    assert await mpx.publish("a", "1") == 0
    await mpx.aclose()


async def test_no_password(redis_with_password):
    """A password that is asked for and not given is raised to who connects."""
    with pytest.raises(RedisUnavailable, match="NOAUTH"):
        async with Multiplexer(redis_with_password.url):
            pass


async def test_too_many_clients(redis):
    """A server that has too many clients is told as that."""
    redis.call("CONFIG", "SET", "maxclients", 1)
    try:
        with pytest.raises(RedisUnavailable, match="max number of clients"):
            async with Multiplexer(redis.url):
                pass
    finally:
        redis.call("CONFIG", "SET", "maxclients", 10000)


async def test_password_is_in_no_traceback():
    """A server that repeats the login it didn't understand isn't quoted."""
    # Debian's: the other doesn't repeat it.
    with debian_server("--rename-command", "HELLO", "", "--requirepass", "pw") as old:
        mpx = Multiplexer(old.url, password="mistyped")
        with pytest.raises(RedisUnavailable) as caught:
            await guarded(mpx.connect())
        await mpx.aclose()
    assert "mistyped" not in "".join(traceback.format_exception(caught.value))


async def test_password_is_in_no_repr(redis):
    """Neither what users hold nor what a debugger shows has the password."""
    mpx = Multiplexer(f"redis://user:secret@127.0.0.1:{redis.port}")
    sub = mpx.subscribe("a")
    login = await mpx._address.login()
    assert login.password == "secret"
    assert "secret" not in repr([mpx, mpx._address, login, sub])


async def test_end_while_logging_in():
    """A link that ends in its login is told with its cause."""

    # It stands in for a proxy whose Redis is away.
    async def hang_up(reader, writer):
        writer.close()

    proxy = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    mpx = Multiplexer(("127.0.0.1", proxy.sockets[0].getsockname()[1]))
    with pytest.raises(RedisUnavailable) as caught:
        await guarded(mpx.connect())
    assert isinstance(caught.value.__cause__, ConnectionResetError)
    await mpx.aclose()
    proxy.close()
