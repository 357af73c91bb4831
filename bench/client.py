"""
The Python client beside others: messages a second, lost ones, memory.

Usage: ``python bench/client.py [--messages 200000] [--rounds 5]``.

A server in a process of its own writes frames as fast as the socket takes them; each
client runs in a fresh process and has a task a channel that reads decoded messages.
README.rst says what is compared, and how. What isn't installed is left out:
``pip install "channelsmultiplexer[client,fast]" jetsocket
AsyncWebsocketStreamInterface``.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import functools
import hashlib
import importlib
import importlib.util
import json
import re
import statistics
import subprocess
import sys
import time
import timeit
from pathlib import Path

# AsyncWebsocketStreamInterface takes some 100 µs a message and filter.
FEWER = {"interface": {1: 20, 10: 20, 1000: 800}}


@functools.cache
def encode(channels, messages):
    """
    Return the frames of all messages, in chunks.
    """
    chunks, chunk = [], bytearray()
    for i in range(messages):
        trade = {"e": "trade", "s": "BTCUSDT", "t": i, "p": "1.25", "q": "3"}
        data = json.dumps({"stream": f"s{i % channels}", "data": trade}).encode()
        # RFC 6455, 5.2: a text frame, its length in one byte.
        assert len(data) < 126
        chunk += bytes([0x81, len(data)]) + data
        if len(chunk) >= 65536:
            chunks.append(bytes(chunk))
            chunk.clear()
    return [*chunks, bytes(chunk)]


async def flood(reader, writer):
    """
    Shake hands as a WebSocket server; then write all frames, in large chunks.

    A WebSocket library would be what is measured.
    """
    request = (await reader.readuntil(b"\r\n\r\n")).decode()
    line, *headers = request.split("\r\n")
    channels, messages = map(int, line.split()[1][1:].split("/"))
    names = {h.partition(":")[0].lower(): h.partition(": ")[2] for h in headers}
    key = names["sec-websocket-key"]
    guid = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    accept = base64.b64encode(hashlib.sha1((key + guid).encode()).digest()).decode()
    chunks = encode(channels, messages)
    writer.write(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
        f"Connection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n".encode()
    )
    # The client says "go" when its channels are subscribed: RFC 6455, 5.2, masked.
    await reader.readexactly(8)
    for chunk in chunks:
        writer.write(chunk)
        await writer.drain()
    with contextlib.suppress(ConnectionError):
        await writer.drain()
        # It closes, and would wait for an answer to that.
        await reader.read(1)
    writer.close()


async def server():
    listening = await asyncio.start_server(flood, "127.0.0.1", 0)
    print(listening.sockets[0].getsockname()[1], flush=True)
    async with listening:
        await listening.serve_forever()


class Count:
    """
    Counts what the readers get, until all is there or nothing comes.
    """

    def __init__(self, total):
        self.total = total
        self.got = 0
        self.seconds = self.cpu = 0.0
        self.done = asyncio.Event()

    def start(self):
        self._started = time.perf_counter(), time.process_time()

    def stamp(self):
        self.seconds = time.perf_counter() - self._started[0]
        self.cpu = time.process_time() - self._started[1]

    def finish(self):
        self.stamp()
        self.done.set()

    async def wait(self):
        idle = 0
        # Those that lose messages end here: two seconds without any.
        while not self.done.is_set() and idle < 20:
            before = self.got
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.done.wait(), 0.1)
            idle += 1
            if self.got != before and not self.done.is_set():
                self.stamp()
                idle = 0


async def reads(count, messages):
    # All clients pay for what is in here.
    async for message in messages:
        assert message is not None
        count.got += 1
        if count.got == count.total:
            count.finish()


async def alone(url, channels, count, connect):
    """
    Receive frames, and do nothing with them: what no client can do without.
    """
    async with connect(url, compression=None) as ws:
        count.start()
        await ws.send("go")
        while count.got < count.total:
            await ws.recv(False)
            count.got += 1
        count.finish()


async def websockets_alone(url, channels, count):
    import websockets.asyncio.client

    await alone(url, channels, count, websockets.asyncio.client.connect)


async def picows_alone(url, channels, count):
    import picows.websockets

    await alone(url, channels, count, picows.websockets.connect)


async def loop(url, channels, count):
    import websockets.asyncio.client

    async with websockets.asyncio.client.connect(
        url, compression=None, max_queue=1024
    ) as ws:
        queues = {f"s{i}": asyncio.Queue() for i in range(channels)}

        async def items(queue):
            while True:
                yield await queue.get()

        async def pump():
            async for frame in ws:
                message = json.loads(frame)
                queues[message["stream"]].put_nowait(message)

        tasks = [asyncio.create_task(reads(count, items(q))) for q in queues.values()]
        tasks.append(asyncio.create_task(pump()))
        count.start()
        await ws.send("go")
        await count.wait()
        for task in tasks:
            task.cancel()


async def ours(url, channels, count, transport="websockets", struct=None):
    from channelsmultiplexer.client import Multiplex

    typed = {} if struct is None else {"type": struct}
    mux = Multiplex(
        url, channel_key="stream", compression=None, transport=transport, **typed
    )
    async with mux:
        subs = [await mux.subscribe(f"s{i}") for i in range(channels)]
        tasks = [asyncio.create_task(reads(count, sub)) for sub in subs]
        count.start()
        await mux.send("go")
        await count.wait()
        for task in tasks:
            task.cancel()


async def picows(url, channels, count):
    await ours(url, channels, count, "picows")


def trade():
    import msgspec

    data = msgspec.defstruct(
        "Trade", [("e", str), ("s", str), ("t", int), ("p", str), ("q", str)], gc=False
    )
    return msgspec.defstruct("Message", [("stream", str), ("data", data)], gc=False)


async def typed(url, channels, count):
    await ours(url, channels, count, struct=trade())


async def picows_typed(url, channels, count):
    await ours(url, channels, count, "picows", trade())


async def jetsocket(url, channels, count):
    import jetsocket

    async with jetsocket.Multiplex(url, channel_key="stream", compress=False) as mux:
        subs = [await mux.subscribe(f"s{i}") for i in range(channels)]
        tasks = [asyncio.create_task(reads(count, sub)) for sub in subs]
        count.start()
        # It has no send of its own.
        await mux._manager.send("go")
        await count.wait()
        for task in tasks:
            task.cancel()


async def interface(url, channels, count):
    import logging

    import websockets
    from AsyncWebsocketStreamInterface import AsyncWebsocketStreamInterface

    with contextlib.suppress(ImportError):
        import loguru

        # It writes a line for each message otherwise.
        loguru.logger.remove()
    logging.disable()

    class Client(AsyncWebsocketStreamInterface):
        async def _create_ws(self):
            return await websockets.connect(url, compression=None)

        async def _when2create_new_ws(self):
            await asyncio.Event().wait()

        async def _parse_raw_data(self, raw_data):
            return json.loads(raw_data)

    client = Client()
    streams = [client.stream_filter([{"stream": f"s{i}"}]) for i in range(channels)]
    tasks = [asyncio.create_task(reads(count, stream)) for stream in streams]
    count.start()
    await client.send("go")
    await count.wait()
    for task in tasks:
        task.cancel()


OURS = "channelsmultiplexer.client"

CLIENTS = {
    "loop": (loop, ["websockets.asyncio.client"]),
    "ours": (ours, ["websockets.asyncio.client", OURS]),
    "ours, typed": (typed, ["websockets.asyncio.client", OURS]),
    "ours, picows": (picows, ["picows.websockets", OURS]),
    "ours, picows, typed": (picows_typed, ["picows.websockets", OURS]),
    "websockets alone": (websockets_alone, ["websockets.asyncio.client"]),
    "picows alone": (picows_alone, ["picows.websockets"]),
    "jetsocket": (jetsocket, ["jetsocket"]),
    "interface": (interface, ["AsyncWebsocketStreamInterface"]),
}

# By CPU, beside the loop; with how many channels it is said of doesn't matter.
PROMISES = {"ours": 1.4, "ours, typed": 1.4, "ours, picows": 4.5}
MEGABYTES = 25


def memory(name):
    """
    Return VmRSS, the megabytes resident now, or VmHWM, the most there were.

    Not getrusage(): its peak outlives an exec, and so has the parent's memory in it.
    """
    status = Path("/proc/self/status").read_text()
    return int(re.search(rf"{name}:\s+(\d+) kB", status)[1]) / 1024


async def client(name, port, channels, messages):
    count = Count(messages)
    # What a library weighs by itself is not what is asked.
    for module in CLIENTS[name][1]:
        importlib.import_module(module)
    before = memory("VmRSS")
    function = CLIENTS[name][0]
    await function(f"ws://127.0.0.1:{port}/{channels}/{messages}", channels, count)
    growth = memory("VmHWM") - before
    print(json.dumps([count.got, count.seconds, count.cpu, growth]), flush=True)


def run(name, port, channels, messages):
    command = [sys.executable, __file__, "--client", name, "--port", str(port)]
    command += ["--channels", str(channels), "--messages", str(messages)]
    out = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        got, seconds, cpu, megabytes = json.loads(out.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        sys.exit(f"{name}: {out.stderr}")
    return got / seconds, got / cpu, 1 - got / messages, megabytes


def match():
    """
    Print what one message costs with a thousand filters.
    """
    from channelsmultiplexer.client.filters import Filters

    filters = Filters()
    for i in range(1000):
        filters.add(i, [{"e": "trade", "s": f"S{i}"}])
    message = {"e": "trade", "s": "S500", "t": 1, "p": "1.25", "q": "3"}
    seconds = min(timeit.repeat(lambda: filters.match(message), number=20_000))
    print(f"\n1000 filters: {seconds / 20_000 * 1e6:.2f} us a message")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--channels", type=int, nargs="*", default=[1, 10, 1000])
    parser.add_argument("--client")
    parser.add_argument("--port", type=int)
    parser.add_argument("--server", action="store_true")
    args = parser.parse_args()
    if args.server:
        return asyncio.run(server())
    if args.client:
        return asyncio.run(
            client(args.client, args.port, args.channels[0], args.messages)
        )
    command = [sys.executable, __file__, "--server"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            port = int(process.stdout.readline())
            results = {n: compare(port, n, args) for n in args.channels}
            match()
            judge(results)
        finally:
            process.terminate()


def compare(port, channels, args):
    names = [
        name
        for name, (_, modules) in CLIENTS.items()
        if all(importlib.util.find_spec(m.partition(".")[0]) for m in modules)
    ]
    results = {name: [] for name in names}
    for i in range(args.rounds):
        # A different one begins each round.
        for name in names[i % len(names) :] + names[: i % len(names)]:
            fewer = FEWER.get(name, {}).get(channels, 1)
            results[name].append(run(name, port, channels, args.messages // fewer))
    print(f"\n{channels} channels, {args.messages} messages, {args.rounds} rounds")
    columns = f"{'messages/s':>12}{'ratio, by the wall':>20}{'by CPU':>20}"
    print(f"{'':20}{columns}{'lost':>8}{'MB':>13}")
    for name, rounds in results.items():
        rate, _, lost, _ = map(statistics.median, zip(*rounds, strict=True))
        wall, cpu = (spread(ratios(rounds, results["loop"], i)) for i in (0, 1))
        megabytes = spread([mine[3] for mine in rounds], 1)
        numbers = f"{rate:12,.0f}{wall:>20}{cpu:>20}{lost:8.1%}  {megabytes:>16}"
        print(f"{name:20}{numbers}", flush=True)
    return results


def ratios(mine, base, clock):
    return [a[clock] / b[clock] for a, b in zip(mine, base, strict=True)]


def spread(numbers, digits=2):
    """
    Return the median, with the least and the most.
    """
    ends = f"({min(numbers):.{digits}f}-{max(numbers):.{digits}f})"
    return f"{statistics.median(numbers):.{digits}f} {ends}"


def judge(results):
    """
    Print what is promised, and if it holds.
    """
    verdicts = []
    for name, target in PROMISES.items():
        for channels, clients in results.items():
            if name not in clients:
                continue
            rounds = clients[name]
            got = ratios(rounds, clients["loop"], 1)
            holds = statistics.median(got) >= target
            verdicts.append(
                (f"{name} / loop, {channels} channels, >={target}", got, holds)
            )
            megabytes = [mine[3] for mine in rounds]
            holds = max(megabytes) <= MEGABYTES
            verdicts.append(
                (f"{name}, {channels} channels, <={MEGABYTES} MB", megabytes, holds)
            )
            lost = [100 * mine[2] for mine in rounds]
            verdicts.append(
                (f"{name}, {channels} channels, no % lost", lost, max(lost) == 0)
            )
        if results.keys() >= {10, 1000} and name in results[10]:
            got = ratios(results[1000][name], results[10][name], 1)
            holds = statistics.median(got) >= 0.8
            verdicts.append((f"{name}, 1000 channels / 10, >=0.8", got, holds))
    print("\nWhat is promised, by CPU")
    for what, got, holds in verdicts:
        print(f"{what:42}{spread(got):>22}  {'holds' if holds else 'FAILS'}")


if __name__ == "__main__":
    main()
