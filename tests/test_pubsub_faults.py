"""
The Redis hop when the network, the server or the disk of certificates is at fault.
"""

from __future__ import annotations

import asyncio
import signal
import ssl
import subprocess

import pytest
import redis.asyncio as aioredis

from channelsmultiplexer.pubsub import (
    Activation,
    Gap,
    Multiplexer,
    RedisUnavailable,
    SubscriptionIsClosed,
)
from recorder import guarded
from redis_server import debian_server, free_port, sentinel, server
from requirement import program


@pytest.fixture
def doomed():
    """
    Return a Redis server that the test may harm.
    """
    with server("--enable-debug-command", "yes") as one:
        yield one


async def until(subscription, kind):
    """
    Return the next event of a kind.
    """
    while not isinstance(event := await asyncio.wait_for(subscription.get(), 20), kind):
        pass
    return event


SECONDS = [
    0.1,
    pytest.param(0.5, marks=pytest.mark.slow),
    pytest.param(3, marks=pytest.mark.slow),
    pytest.param(12, marks=pytest.mark.slow),
]


@pytest.mark.parametrize("seconds", SECONDS)
async def test_outage(doomed, seconds):
    """
    After an outage all is back by itself, and was told in order.

    RedisMPX's server_kill_restart; its 0.4.3 forgets the patterns.
    """
    mpx = Multiplexer(doomed.url)
    async with mpx, mpx.subscribe("a", patterns=["p*"]) as sub:
        doomed.stop()
        gap = await until(sub, Gap)
        # The length of the outage is what is tested.
        await asyncio.sleep(seconds)
        doomed.start()
        back = {(await until(sub, Activation)).name for _ in range(2)}
        assert isinstance(gap.error, ConnectionError)
        assert back == {b"a", b"p*"}
        assert doomed.call("PUBLISH", "a", "1") == 1
        assert (await guarded(anext(sub))).data == b"1"


async def test_first_connection_while_down(doomed, recorder):
    """A callback subscription made before its server is there becomes active."""
    doomed.stop()
    mpx = Multiplexer(doomed.url)
    mpx.new_channel_subscription(*recorder.callbacks).add("a")
    with pytest.raises(RedisUnavailable):
        await guarded(mpx.connect())
    doomed.start()
    assert await recorder.next() == ("active", b"a")
    await mpx.aclose()


async def test_entering_waits_for_the_end_of_an_outage(doomed):
    """A subscription that is entered in an outage is active when that is over."""
    async with Multiplexer(doomed.url, backoff=lambda: iter([0.01] * 1000)) as mpx:
        doomed.stop()
        async with mpx.subscribe() as gone:
            await until(gone, Gap)
        entering = asyncio.ensure_future(mpx.subscribe("a").__aenter__())
        with pytest.raises(RedisUnavailable):
            await guarded(mpx.connect())
        doomed.start()
        sub = await guarded(entering)
        assert doomed.subscribers("a") == 1
        await sub.aclose()


async def test_name_that_is_added_before_there_is_a_link(doomed):
    """A name whose add() raises RedisUnavailable is active when Redis is there."""
    doomed.stop()
    mpx = Multiplexer(doomed.url)
    sub = await guarded(mpx.subscribe().__aenter__())
    with pytest.raises(RedisUnavailable):
        await guarded(sub.add("a"))
    doomed.start()
    assert await asyncio.wait_for(sub.get(), 20) == Activation(b"a")
    await mpx.aclose()


async def test_backoff_that_ends(caplog):
    """When the delays end, so does the Multiplexer, and says so."""
    mpx = Multiplexer("redis://127.0.0.1:1", backoff=lambda: iter([0.0]))
    for _ in range(2):
        with pytest.raises(RedisUnavailable):
            await guarded(mpx.connect())
    with pytest.raises(SubscriptionIsClosed):
        await guarded(mpx.connect())
    assert "gives up" in caplog.text


async def test_warnings_of_an_outage(caplog):
    """A failure that is the last one's like is no warning again."""
    mpx = Multiplexer("redis://127.0.0.1:1", backoff=lambda: iter([0.0] * 100))
    for _ in range(3):
        with pytest.raises(RedisUnavailable):
            await guarded(mpx.connect())
    await mpx.aclose()
    warnings = [record for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 1


async def test_killed_twice_in_resubscription(doomed, recorder):
    """A link that is dropped again while names come back loses none of them."""
    count = 2000
    backoff = {"backoff": lambda: iter([0.0] * 1000)}
    async with Multiplexer(doomed.url, **backoff) as mpx:
        one = mpx.new_channel_subscription(lambda c, m: None, recorder.disconnect)
        names = [f"c{number}" for number in range(count)]
        one.add(*names)
        async with mpx.subscribe("settled") as sub:
            for _ in range(2):
                mpx.connected_event.clear()
                doomed.kill_subscribers()
                doomed.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
                await guarded(mpx.connected_event.wait())
            doomed.kill_subscribers()
            await until(sub, Gap)
            await sub.add("last")
            counts = doomed.call("PUBSUB", "NUMSUB", *names)[1::2]
            assert counts == [1] * count


async def test_backoff_grows_while_the_link_is_short(doomed):
    """A server that drops every link at once isn't asked in a hot loop."""
    asked = []

    def backoff():
        asked.append([])
        while True:
            asked[-1].append(None)
            yield 0.0

    mpx = Multiplexer(doomed.url, backoff=backoff, healthy_after=60)
    async with mpx, mpx.subscribe("a") as sub:
        for _ in range(5):
            doomed.kill_subscribers()
            await until(sub, Gap)
            await until(sub, Activation)
    assert [len(delays) for delays in asked] == [5]


async def test_backoff_starts_anew_after_health(doomed):
    """A link that was healthy makes the next loss a first one."""
    made = []

    def backoff():
        made.append(None)
        while True:
            yield 0.0

    mpx = Multiplexer(doomed.url, backoff=backoff, healthy_after=0)
    async with mpx, mpx.subscribe("a") as sub:
        for _ in range(3):
            await until(sub, Activation)
            doomed.kill_subscribers()
        await until(sub, Activation)
    # A generator starts with its first delay.
    assert len(made) == 3


async def test_half_open_link(doomed):
    """
    A server that goes silent is noticed, and told as an error.

    RedisMPX's half_open.
    """
    ping = {"ping_interval": 0.05, "ping_timeout": 0.05, "timeout": 0.2}
    async with Multiplexer(doomed.url, **ping) as mpx, mpx.subscribe("a") as sub:
        doomed.signal(signal.SIGSTOP)
        try:
            gap = await until(sub, Gap)
            assert "silent" in str(gap.error)
        finally:
            doomed.signal(signal.SIGCONT)
        await until(sub, Activation)


async def test_idle_link_stays(doomed):
    """An idle link whose server answers is kept."""
    mpx = Multiplexer(doomed.url, ping_interval=0.01, ping_timeout=0.2)
    async with mpx, mpx.subscribe("a"):
        # The silence is what is tested.
        await asyncio.sleep(0.5)
        assert "cmdstat_ping" in doomed.call("INFO", "commandstats")
        assert mpx.connections == 1


async def test_slow_login(doomed):
    """A login that isn't answered ends with its deadline, and is told."""
    mpx = Multiplexer(doomed.url, password="x", timeout=0.05)
    # The system accepts the connection, and Redis says nothing.
    doomed.signal(signal.SIGSTOP)
    with pytest.raises(RedisUnavailable, match=r"no login within 0\.05 seconds"):
        await guarded(mpx.connect())
    doomed.signal(signal.SIGCONT)
    await mpx.aclose()


async def test_login_that_is_slow_once(doomed):
    """When Redis answers again, so does the login."""
    mpx = Multiplexer(doomed.url, timeout=0.2)
    doomed.signal(signal.SIGSTOP)
    with pytest.raises(RedisUnavailable):
        await guarded(mpx.connect())
    doomed.signal(signal.SIGCONT)
    await guarded(mpx.connected_event.wait())
    await mpx.aclose()


async def test_not_redis():
    """A server that speaks something else is told, and nothing hangs."""

    # A web server, say.
    async def accept(reader, writer):
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await reader.read()
        writer.close()

    other = await asyncio.start_server(accept, "127.0.0.1", 0)
    mpx = Multiplexer(("127.0.0.1", other.sockets[0].getsockname()[1]))
    with pytest.raises(RedisUnavailable, match="Protocol"):
        await guarded(mpx.connect())
    await mpx.aclose()
    other.close()


async def test_output_buffer_kill(doomed):
    """A reader that Redis drops for its backlog comes back, and is told."""
    doomed.call("CONFIG", "SET", "client-output-buffer-limit", "pubsub 1mb 1mb 1")
    async with Multiplexer(doomed.url) as mpx, mpx.subscribe("a") as sub:
        # Nothing is read while this test holds the event loop.
        for _ in range(2000):
            doomed.call("PUBLISH", "a", "x" * 10_000)
        assert not doomed.clients()
        await until(sub, Gap)
        await until(sub, Activation)
        assert doomed.call("PUBLISH", "a", "1") == 1


async def test_ten_thousand_names(doomed, recorder):
    """Ten thousand names come back after a loss."""
    names = [f"c{number}" for number in range(10_000)]
    async with Multiplexer(doomed.url) as mpx:
        one = mpx.new_channel_subscription(*recorder.callbacks)
        one.add(*names)
        await recorder.take(10_000)
        doomed.kill_subscribers()
        assert (await recorder.next())[0] == "disconnect"
        back = {name.decode() for _, name in await recorder.take(10_000)}
        assert back == set(names)
        one.clear()
        async with mpx.subscribe("settled"):
            assert doomed.call("PUBSUB", "CHANNELS") == ["settled"]


# TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """
    Return the paths of a certificate for 127.0.0.1 and its key.
    """
    folder = tmp_path_factory.mktemp("tls")
    names = "subjectAltName=IP:127.0.0.1"
    command = [program("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes"]
    command += ["-keyout", "key.pem", "-out", "cert.pem", "-days", "2"]
    command += ["-subj", "/CN=redis", "-addext", names]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder / "cert.pem", folder / "key.pem"


@pytest.fixture(scope="module")
def tls(certificate):
    """
    Return a Redis server that does TLS, and the port of that.
    """
    cert, key = map(str, certificate)
    port = free_port()
    options = ["--tls-port", str(port), "--tls-cert-file", cert, "--tls-key-file", key]
    options += ["--tls-auth-clients", "no"]
    with debian_server(*options) as one:
        yield one, port


async def test_tls(tls, certificate):
    """TLS works by URL, by keyword and with a context of one's own."""
    _, port = tls
    cert = str(certificate[0])
    url = f"rediss://127.0.0.1:{port}"
    context = ssl.create_default_context(cafile=cert)
    for mpx in (
        Multiplexer(f"{url}?ssl_ca_certs={cert}"),
        Multiplexer(("127.0.0.1", port), ssl=True, ssl_ca_certs=cert),
        Multiplexer(url, ssl=context),
    ):
        async with mpx, mpx.subscribe("a") as sub:
            assert await mpx.publish("a", "1") == 1
            assert (await guarded(anext(sub))).data == b"1"


async def test_refused_tls(tls, caplog):
    """A certificate that isn't trusted is raised to who waits, and logged."""
    one, port = tls
    with pytest.raises(RedisUnavailable, match="certificate verify failed"):
        async with Multiplexer(f"rediss://127.0.0.1:{port}"):
            pass
    assert "certificate verify failed" in caplog.text
    assert not one.clients()


# Sentinel


async def test_entering_while_sentinel_has_no_master():
    """A failover is waited for as an outage is."""
    with debian_server() as master, sentinel(master) as watch:
        sentinels = aioredis.Sentinel([("127.0.0.1", watch.port)])
        client = sentinels.master_for("main")
        async with Multiplexer(client) as mpx, mpx.subscribe() as sub:
            watch.call("SENTINEL", "REMOVE", "main")
            master.call("CLIENT", "KILL", "TYPE", "normal")
            await until(sub, Gap)
            adding = asyncio.ensure_future(sub.add("a"))
            with pytest.raises(RedisUnavailable, match="main"):
                await guarded(mpx.connect())
            watch.call("SENTINEL", "MONITOR", "main", "127.0.0.1", master.port, 1)
            await asyncio.wait_for(adding, 20)
        await client.aclose()
        await sentinels.sentinels[0].aclose()


async def test_sentinel():
    """The master is asked for at every connection: a new one is found."""
    two_servers = debian_server(), debian_server()
    with two_servers[0] as first, two_servers[1] as second, sentinel(first) as watch:
        sentinels = aioredis.Sentinel([("127.0.0.1", watch.port)])
        client = sentinels.master_for("main")
        async with Multiplexer(client) as mpx, mpx.subscribe("a") as sub:
            assert first.subscribers("a") == 1
            watch.call("SENTINEL", "REMOVE", "main")
            watch.call("SENTINEL", "MONITOR", "main", "127.0.0.1", second.port, 1)
            first.kill_subscribers()
            await until(sub, Gap)
            await until(sub, Activation)
            assert second.subscribers("a") == 1
        await client.aclose()
        await sentinels.sentinels[0].aclose()
