"""
Look at a demultiplexer, or at any feed, from a shell::

    python -m channelsmultiplexer ws://127.0.0.1:8000/ws/ --stream echo --send '[1]'
    python -m channelsmultiplexer wss://feed.example/ws --channel-key stream --count 5

What arrives is printed as JSON lines.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import json
import sys
from collections.abc import Sequence
from typing import Any

from .client import Closed, Multiplex, Refused

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
    add("--count", type=int, metavar="N", help="leave after N messages")
    add("--timeout", type=float, default=10, help="seconds to connect; 10")
    add("--stats", action="store_true", help="print the numbers when leaving")
    options = parser.parse_args(arguments)
    if options.subscribe and not options.channel_key:
        parser.error("--subscribe needs --channel-key")
    if options.stream and options.channel_key:
        parser.error("--stream is for a demultiplexer, --channel-key for a feed")
    return options


def header(text: str) -> tuple[str, str]:
    """
    Read a header of the command line.
    """
    name, colon, value = text.partition(":")
    if not (name.strip() and colon):
        raise argparse.ArgumentTypeError(f"expected 'Name: value', got {text!r}")
    return name.strip(), value.strip()


async def look(options: argparse.Namespace) -> None:
    """
    Print what arrives, until there is enough of it or the connection ends.
    """
    settings: dict[str, Any] = {"headers": dict(options.header)}
    if options.stream:
        settings["dialect"] = "bare" if options.bare else "v1"
    elif options.channel_key:
        settings["channel_key"] = options.channel_key.split(".")
    mux: Multiplex[Any] = Multiplex(options.url, **settings)
    left = options.count

    async def show(name: str | None, messages: Any) -> None:
        nonlocal left
        async for message in messages:
            if isinstance(message, bytes):
                message = {"bytes": message.hex()}
            line = {"stream": name, "payload": message} if name else message
            print(json.dumps(line), flush=True)  # noqa: T201 (a command)
            if left is not None:
                left -= 1
                if left <= 0:
                    enough.set()
                    return

    enough = asyncio.Event()
    await mux.connect(options.timeout)
    tasks: list[asyncio.Task[Any]] = [asyncio.create_task(enough.wait())]
    try:
        streams = [await mux.open(name) for name in options.stream]
        subscribed = [await mux.subscribe(name) for name in options.subscribe]
        shown = [show(each.channel, each) for each in [*streams, *subscribed]]
        shown = shown or [show(None, mux.iter_messages())]
        tasks.append(asyncio.create_task(all_of(shown)))
        for text in options.send:
            for stream in streams:
                await stream.send_text(text)
            if not streams:
                await mux.send(text)
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if tasks[1].done():
            tasks[1].result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await mux.close()
        if options.stats:
            numbers = dataclasses.asdict(mux.stats())
            print(json.dumps(numbers), file=sys.stderr)  # noqa: T201


async def all_of(awaitables: Sequence[Any]) -> None:
    """
    Return when all are done, or raise what the first raises.
    """
    await asyncio.gather(*awaitables)


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run the command.

    Returns:
        0; 1 if the connection failed, having said why on standard error.
    """
    options = parse(arguments)
    try:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(look(options))
    except Refused as error:
        print(f"refused: {error}", file=sys.stderr)  # noqa: T201
        return 1
    except (Closed, TimeoutError) as error:
        print(f"{options.url}: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
