"""
The Redis hop beside its peers: CPU a message, memory, time to subscribe.

    pip install '.[tests]' coredis 'redismpx==0.5.2' 'aioredis<2' setuptools
    python bench/redis.py

A process each, that listens, one that publishes, and a server of its own. See
redis.rst for what the columns say.
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

# This file's name would take the place of redis-py's.
HERE = pathlib.Path(__file__).parent
sys.path[:] = [path for path in sys.path if pathlib.Path(path) != HERE]

SUBSCRIPTIONS = 1000
DATA = b"x" * 32


def rss():
    """
    Return the process's resident memory in bytes.
    """
    gc.collect()
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


class Counter:
    """
    Counts what is delivered, and tells when that is all.
    """

    def __init__(self):
        self.count = self.goal = 0
        self.done = asyncio.Event()

    def message(self, channel, data):
        """
        Count a message.
        """
        self.count += 1
        if self.count == self.goal:
            self.done.set()


# Each implementation: subscribe to names, return what must be kept alive.


async def ours_callback(url, names, counter):
    """channelsmultiplexer, callbacks"""
    from channelsmultiplexer.pubsub import Multiplexer

    mpx = Multiplexer(url)
    active = asyncio.Semaphore(0)
    on_message, on_activation = counter.message, lambda _: active.release()
    kept = []
    for name in names:
        one = mpx.new_channel_subscription(on_message, None, on_activation)
        one.add(name)
        kept.append(one)
    for _ in names:
        await active.acquire()
    return mpx, kept


async def ours_iterator(url, names, counter):
    """channelsmultiplexer, iterators"""
    from channelsmultiplexer.pubsub import Multiplexer

    mpx = Multiplexer(url)

    async def read(sub):
        async for message in sub:
            counter.message(message.channel, message.data)

    subs = [mpx.subscribe(name) for name in names]
    await asyncio.gather(*(sub.__aenter__() for sub in subs))
    return mpx, [asyncio.create_task(read(sub)) for sub in subs]


async def redismpx(url, names, counter):
    """RedisMPX 0.5.2, callbacks"""
    from redismpx import Multiplexer

    mpx = Multiplexer(url)
    active = asyncio.Semaphore(0)
    on_message, on_activation = counter.message, lambda _: active.release()
    kept = []
    for name in names:
        one = mpx.new_channel_subscription(on_message, None, on_activation)
        one.add(name)
        kept.append(one)
    for _ in names:
        await active.acquire()
    return mpx, kept


async def redis_py_each(url, names, counter):
    """redis-py, a connection each"""
    import redis.asyncio

    client = redis.asyncio.Redis.from_url(url, max_connections=2 * len(names))

    async def read(pubsub):
        async for message in pubsub.listen():
            counter.message(message["channel"], message["data"])

    kept = []
    for name in names:
        pubsub = client.pubsub(ignore_subscribe_messages=True)
        await pubsub.subscribe(name)
        kept.append((pubsub, asyncio.create_task(read(pubsub))))
    return client, kept


async def redis_py_dict(url, names, counter):
    """redis-py, one PubSub and a dict"""
    import redis.asyncio

    pubsub = redis.asyncio.Redis.from_url(url).pubsub(ignore_subscribe_messages=True)
    callbacks = {}
    for name in names:
        await pubsub.subscribe(name)
        callbacks.setdefault(name.encode(), []).append(counter.message)

    async def read():
        async for message in pubsub.listen():
            for callback in callbacks[message["channel"]]:
                callback(message["channel"], message["data"])

    return pubsub, asyncio.create_task(read())


async def coredis(url, names, counter):
    """coredis, iterator and a dict"""
    import coredis

    stack = contextlib.AsyncExitStack()
    client = coredis.Redis.from_url(url)
    with contextlib.suppress(AttributeError):
        await stack.enter_async_context(client)
    pubsub = await stack.enter_async_context(
        client.pubsub(ignore_subscribe_messages=True)
    )
    callbacks = {}
    for name in dict.fromkeys(names):
        await pubsub.subscribe(name)
    for name in names:
        callbacks.setdefault(name.encode(), []).append(counter.message)

    async def read():
        async for message in pubsub:
            for callback in callbacks[message["channel"]]:
                callback(message["channel"], message["data"])

    return stack, asyncio.create_task(read())


async def channels_redis(url, names, counter):
    """channels_redis, RedisPubSubChannelLayer"""
    from channels_redis.pubsub import RedisPubSubChannelLayer

    layer = RedisPubSubChannelLayer(hosts=[url])
    tasks = []

    async def read(channel):
        while True:
            await layer.receive(channel)
            counter.message(None, None)

    for name in names:
        channel = await layer.new_channel()
        await layer.group_add(name, channel)
        tasks.append(asyncio.create_task(read(channel)))
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


async def listen(implementation, url, names):
    """
    Subscribe, say so, count until told the end, print what it took.
    """
    counter = Counter()
    counter.goal = int(os.environ["GOAL"])
    # What is loaded and made once is no subscription's.
    warm = await IMPLEMENTATIONS[implementation](url, ["warm"], Counter())
    before = rss()
    started = time.perf_counter()
    kept = await IMPLEMENTATIONS[implementation](url, names, counter)
    subscribed = time.perf_counter() - started
    after = rss()
    print(json.dumps({}), flush=True)
    cpu, wall = time.process_time(), time.perf_counter()
    await asyncio.wait_for(counter.done.wait(), 120)
    result = {
        "cpu": (time.process_time() - cpu) / counter.goal * 1e6,
        "rate": counter.goal / (time.perf_counter() - wall),
        "memory": (after - before) / len(names),
        "subscribe": subscribed * 1000,
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


def measure(implementation, url, scenario, messages):
    """
    Run one implementation once.
    """
    if scenario == "spread":
        names = [f"channel{n}" for n in range(SUBSCRIPTIONS)]
        goal = messages
    else:
        names = ["channel"] * SUBSCRIPTIONS
        goal = messages * SUBSCRIPTIONS
    command = [sys.executable, "-W", "ignore", __file__, "--listen", implementation]
    command += ["--url", url, "--scenario", scenario]
    environment = {**os.environ, "GOAL": str(goal)}
    listener = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=environment
    )
    try:
        listener.stdout.readline()
        data = DATA
        if implementation == "channels_redis":
            from channels_redis.pubsub import RedisPubSubChannelLayer

            layer = RedisPubSubChannelLayer(hosts=[url])
            data = layer.serialize({"type": "x", "data": DATA.decode()})
            names = [f"asgi__group__{name}" for name in names]
        publish(url, list(dict.fromkeys(names)), messages, data)
        return json.loads(listener.stdout.readline())
    finally:
        listener.kill()
        listener.wait()
        listener.stdout.close()


async def resubscribe(url, call):
    """
    Return the milliseconds that 10 000 names take to come back.
    """
    from channelsmultiplexer.pubsub import Multiplexer

    names = [f"c{n}" for n in range(10_000)]
    active = Counter()
    active.goal = len(names)
    mpx = Multiplexer(url, backoff=lambda: iter([0.0] * 100))
    one = mpx.new_channel_subscription(
        active.message, None, lambda name: active.message(name, b"")
    )
    one.add(*names)
    await active.done.wait()
    times = []
    for _ in range(5):
        active.count = 0
        active.done.clear()
        lost = mpx._connection.lost
        call("CLIENT", "KILL", "TYPE", "pubsub")
        await asyncio.shield(lost)
        started = time.perf_counter()
        await active.done.wait()
        times.append((time.perf_counter() - started) * 1000)
    await mpx.aclose()
    return statistics.median(times)


def main():
    """
    Run all, in rounds, so that what disturbs the machine disturbs all.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--messages", type=int, default=200_000)
    parser.add_argument("--listen", help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    parser.add_argument("--scenario", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.listen:
        logging.disable(logging.CRITICAL)
        spread = [f"channel{n}" for n in range(SUBSCRIPTIONS)]
        names = spread if options.scenario == "spread" else ["channel"] * SUBSCRIPTIONS
        asyncio.run(listen(options.listen, options.url, names))
        return
    sys.path.insert(0, str(HERE.parent / "tests"))
    server = importlib.import_module("redis_server").server
    logging.disable(logging.CRITICAL)
    with server() as one:
        one.call("CONFIG", "SET", "client-output-buffer-limit", "pubsub 0 0 0")
        for scenario in ("spread", "fanout"):
            messages = options.messages if scenario == "spread" else 1000
            results = {name: [] for name in IMPLEMENTATIONS}
            # It delivers to the newest listener of a channel only.
            if scenario == "fanout":
                del results["redismpx"]
            for _ in range(options.rounds):
                for name, rows in results.items():
                    rows.append(measure(name, one.url, scenario, messages))
            report(scenario, results)
        again = asyncio.run(resubscribe(one.url, one.call))
        print(f"\n10 000 names again: {again:.1f} ms")


def report(scenario, results):
    """
    Print the medians, and the ratios to RedisMPX and to redis-py.
    """
    medians = {
        name: {key: statistics.median(row[key] for row in rows) for key in rows[0]}
        for name, rows in results.items()
    }
    print(
        f"\n{scenario}: {SUBSCRIPTIONS} subscriptions, Python {sys.version.split()[0]}"
    )
    head = ("us CPU", "x RedisMPX", "x redis-py", "k/s", "B/sub", "ms sub")
    print(f"{'':42}" + "".join(f"{title:>11}" for title in head))
    for name, row in medians.items():
        cells = [f"{row['cpu']:.3f}"]
        for peer in ("redismpx", "redis_py_dict"):
            known = peer in medians
            cells.append(f"{row['cpu'] / medians[peer]['cpu']:.2f}" if known else "-")
        cells += [f"{row['rate'] / 1000:.0f}", f"{row['memory']:.0f}"]
        cells.append(f"{row['subscribe']:.1f}")
        title = IMPLEMENTATIONS[name].__doc__
        print(f"{title:42}" + "".join(f"{cell:>11}" for cell in cells))


if __name__ == "__main__":
    main()
