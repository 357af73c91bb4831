"""
Look at a demultiplexer, or at any feed, from a shell::

    python -m channelsmultiplexer ws://127.0.0.1:8000/ws/ --stream echo --send '[1]'
    python -m channelsmultiplexer wss://feed.example/ws --channel-key stream --count 5

What arrives is printed as JSON lines; losses and gaps are told of on standard error.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from .client import Closed, Event, Multiplex, Refused

__all__ = ["main"]


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """
    Read the command line.
    """
    parser = argparse.ArgumentParser(
        "python -m channelsmultiplexer",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("url", metavar="URL", help="where to: ws:// or wss://")
    add(
        "--stream",
        action="append",
        default=[],
        metavar="NAME",
        help="open a stream of a demultiplexer; a path in the dialect v1",
    )
    add("--bare", action="store_true", help="speak the dialect bare to it, not v1")
    add(
        "--subscribe",
        action="append",
        default=[],
        metavar="CHANNEL",
        help="print a channel of a feed; needs --channel-key",
    )
    add("--channel-key", metavar="KEY", help="where a message has its channel: a.b.c")
    add(
        "--send",
        action="append",
        default=[],
        metavar="JSON",
        help="send this: to each stream, or to the feed",
    )
    add(
        "--header",
        action="append",
        default=[],
        type=header,
        metavar="HEADER",
        help='send this with the handshake: "Origin: https://example.com"',
    )
    add("--count", type=positive, metavar="N", help="leave after N messages")
    add(
        "--timeout",
        type=seconds,
        default=10.0,
        metavar="SECONDS",
        help="seconds to connect, and to open; 10",
    )
    add("--stats", action="store_true", help="print the numbers when leaving")
    options = parser.parse_args(arguments)
    if options.subscribe and not options.channel_key:
        parser.error("--subscribe needs --channel-key")
    if options.stream and options.channel_key:
        parser.error("--stream is for a demultiplexer, --channel-key for a feed")
    if options.bare and not options.stream:
        parser.error("--bare needs --stream")
    return options


def header(text: str) -> tuple[str, str]:
    """
    Read a header of the command line.
    """
    name, colon, value = text.partition(":")
    if not (name.strip() and colon):
        raise argparse.ArgumentTypeError(f"expected 'Name: value', got {text!r}")
    return name.strip(), value.strip()


def positive(text: str) -> int:
    """
    Read a whole number of 1 or more.
    """
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def seconds(text: str) -> float:
    """
    Read a number of more than 0.
    """
    number = float(text)
    if not number > 0:
        raise ValueError(text)
    return number


async def look(options: argparse.Namespace) -> int:
    """
    Print what arrives, until there is enough of it or the connection ends.

    Returns:
        0; 1 if a stream was refused.
    """
    settings: dict[str, Any] = {"headers": options.header}
    if options.stream:
        settings["dialect"] = "bare" if options.bare else "v1"
    elif options.channel_key:
        settings["channel_key"] = options.channel_key.split(".")
    mux: Multiplex[Any] = Multiplex(options.url, **settings)
    names = ("disconnected", "retrying", "gap", "error")
    silence = [mux.on(name, tell) for name in names]
    left = options.count

    async def show(name: str | None, messages: Any) -> None:
        nonlocal left
        async for message in messages:
            # One of the others has printed the last.
            if enough.is_set():
                return
            if isinstance(message, bytes):
                message = {"bytes": message.hex()}
            line = {"stream": name, "payload": message} if name else message
            print(json.dumps(line), flush=True)  # noqa: T201 (a command)
            if left is not None:
                left -= 1
                if left <= 0:
                    enough.set()

    enough = asyncio.Event()
    # Before it is connected to: what the server sends first is printed, too.
    subscribed = [await mux.subscribe(name) for name in options.subscribe]
    shown: list[tuple[str | None, Any]] = [(each.channel, each) for each in subscribed]
    if not options.stream and not subscribed:
        shown.append((None, mux.iter_messages()))
    early = options.stream if options.bare else []
    streams = [await mux.open(name) for name in early]
    await mux.connect(options.timeout)
    tasks: list[asyncio.Task[Any]] = [asyncio.create_task(enough.wait())]
    try:
        for name in options.stream[len(early) :]:
            try:
                streams.append(await mux.open(name, timeout=options.timeout))
            except Refused as error:
                say(f"{name}: refused, {text_of(error)}")
                return 1
        shown += [(stream.channel, stream) for stream in streams]
        tasks.append(asyncio.create_task(all_of([show(*each) for each in shown])))
        for text in options.send:
            for stream in streams:
                await stream.send_text(text)
            if not streams:
                await mux.send(text)
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if tasks[1].done():
            tasks[1].result()
        return 0
    finally:
        # Afterwards it is closed, and nothing is subscribed to.
        stats = mux.stats()
        # What comes from now on is for nobody.
        for stop in silence:
            stop()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await mux.close()
        if options.stats:
            say(json.dumps(dataclasses.asdict(stats)))


def tell(event: Event) -> None:
    """
    Say what happened to the connection.
    """
    details = [
        event.channel and str(event.channel),
        event.code and f"{event.code} {event.reason}".rstrip(),
        event.count and f"{event.count} dropped",
        event.delay is not None and f"in {event.delay:.1f} s",
        event.error and not event.code and text_of(event.error),
    ]
    say(", ".join([event.name, *filter(None, details)]))


def say(text: str) -> None:
    """
    Print what is no message; control characters of the server's do nothing.
    """
    safe = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    print(safe, file=sys.stderr, flush=True)  # noqa: T201


def text_of(error: BaseException) -> str:
    """
    Return an error's text in full, which :exc:`.Closed` cuts short for logs.
    """
    if isinstance(error, Closed):
        return f"closed with {error.code} {error.reason}".rstrip()
    return str(error) or type(error).__name__


async def all_of(awaitables: Sequence[Any]) -> None:
    """
    Return when all are done, or raise what the first raises.
    """
    await asyncio.gather(*awaitables)


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run the command.

    Returns:
        0; 1 if the connection failed, having said why on standard error, or if
        nobody reads what is printed.
    """
    options = parse(arguments)
    try:
        with contextlib.suppress(KeyboardInterrupt):
            return asyncio.run(look(options))
    except BrokenPipeError:
        # Python flushes once more when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (Closed, TimeoutError, ValueError) as error:
        text = text_of(error)
        say(text if options.url in text else f"{options.url}: {text}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
