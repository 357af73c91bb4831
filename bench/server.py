"""
What a frame and a stream cost on the server, beside what they cost elsewhere.

README.rst says what is compared, and how to read what this prints.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import gc
import importlib.metadata
import importlib.util
import itertools
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
import venv
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

PACKAGE = "channelsmultiplexer"
REQUIREMENTS = ["channels==4.3.*", "daphne", "Django", "msgspec", f"{PACKAGE}==0.0.3"]

CONTENDERS = ["plain", "0.0.3", "bare", "v1"]
SIZES = {"30 B": 30, "1 kB": 1000, "16 kB": 16000}
IN_FLIGHT = [1, 64]
STREAMS = [1, 10, 100, 1000]

# How many streams, or applications, the costs of one are the mean of.
MANY = 1000


@dataclasses.dataclass(frozen=True)
class Cell:
    """
    One line of the table of frames.
    """

    size: str
    in_flight: int
    streams: int

    def __str__(self) -> str:
        return f"{self.size:>5} {self.in_flight:>9} {self.streams:>7}"


@dataclasses.dataclass(frozen=True)
class Promise:
    """
    By what factor one contender in one cell is faster than another in another, and
    at least should be; None if that is shown and not promised.
    """

    what: str
    ours: str
    cell: Cell
    theirs: str
    other: Cell
    least: float | None


# The worker: one contender, in a process of its own


class Worker:
    """
    Holds the streams of one contender, and the server's end of their sockets.

    Args:
        contender: Which of :data:`CONTENDERS`.
    """

    def __init__(self, contender: str) -> None:
        # Here, since only the virtual environment of the workers has them.
        from channels.generic.websocket import AsyncJsonWebsocketConsumer
        from django.conf import settings

        layer = {"BACKEND": "channels.layers.InMemoryChannelLayer"}
        settings.configure(CHANNEL_LAYERS={"default": layer})
        worker = self

        class Echo(AsyncJsonWebsocketConsumer):
            async def connect(self) -> None:
                await self.accept()
                worker.awaited -= 1
                if not worker.awaited:
                    worker.all_accepted.set()

            async def receive_json(self, content: Any, **kwargs: Any) -> None:
                await self.send_json(content)

        self.contender = contender
        self.echo_application = Echo.as_asgi()
        # How many streams are yet to be accepted.
        self.awaited = 0
        self.all_accepted = asyncio.Event()
        # What the server would write to its clients.
        self.replies: asyncio.Queue[Any] = asyncio.Queue()
        # What serves each socket: the event loop's references are weak.
        self.sockets: list[asyncio.Task[None]] = []
        # The queue of each stream's socket, and the stream's name in a frame.
        self.streams: list[tuple[asyncio.Queue[Any], str]] = []

    # Commands

    async def versions(self) -> list[str]:
        """Return what the contenders run on."""
        names = ["channels", "Django", "asgiref", "msgspec"]
        return [f"{name} {importlib.metadata.version(name)}" for name in names]

    async def open(self, count: int) -> dict[str, float]:
        """Open streams; return the seconds and the tasks that each took."""
        tasks = len(asyncio.all_tasks())
        self.awaited = count
        self.all_accepted.clear()
        names = [str(number) for number in range(1, count + 1)]
        # A class is made when a server starts: that isn't timed.
        demultiplexer = self._demultiplexer(names)
        gc.collect()
        began = time.perf_counter()
        if self.contender == "plain":
            self.streams = [(self._connect(self.echo_application), "") for _ in names]
        else:
            socket = self._connect(demultiplexer)
            self.streams = [(socket, name) for name in names]
        if self.contender == "v1":
            for name in names:
                frame = f'{{"op":"open","stream":"{name}","path":"1/"}}'
                socket.put_nowait({"type": "websocket.receive", "text": frame})
        await self.all_accepted.wait()
        seconds = time.perf_counter() - began
        await self._check()
        tasks = len(asyncio.all_tasks()) - tasks
        return {"seconds": seconds / count, "tasks": tasks / count}

    async def echo(self, size: str, in_flight: int, seconds: float) -> dict[str, float]:
        """Return how many frames came back a second, by either clock."""
        # Dealt to the streams in turn, so that each has its share.
        frames = itertools.cycle(self._frames(make_payload(SIZES[size])))
        await self._exchange(frames, in_flight, seconds / 10)
        gc.collect()
        wall, cpu = time.perf_counter(), time.process_time()
        count = await self._exchange(frames, in_flight, seconds)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        return {"wall": count / wall, "cpu": count / cpu}

    async def memory(self, count: int) -> float:
        """Return the bytes that a stream takes once it has echoed a frame."""
        # What is made once, whatever the number of streams.
        await self.open(10)
        return await growth(self.open(count)) / count

    async def unopened(self, count: int) -> dict[str, float]:
        """Return what an application costs that is named and never opened."""
        sizes, tasks = [], []
        for names in (["1"], ["1"], [str(name) for name in range(count + 1)]):
            demultiplexer = self._demultiplexer(names)
            before = len(asyncio.all_tasks())
            sizes.append(await growth(self._hello(demultiplexer)))
            tasks.append(len(asyncio.all_tasks()) - before)
        # The first has made what is made once; the second is the one to compare.
        return {
            "bytes": (sizes[2] - sizes[1]) / count,
            "tasks": (tasks[2] - tasks[1]) / count,
        }

    # Private

    def _demultiplexer(self, names: list[str]) -> Any:
        from channelsmultiplexer import AsyncJsonWebsocketDemultiplexer

        applications = dict.fromkeys(names, self.echo_application)

        # 0.0.3 writes to the class's dict: each has its own.
        class Demultiplexer(AsyncJsonWebsocketDemultiplexer):
            pass

        Demultiplexer.applications = applications
        Demultiplexer.max_streams = MANY
        return Demultiplexer.as_asgi()

    def _connect(self, application: Any) -> asyncio.Queue[Any]:
        """Do what a server does when a client connects."""
        received: asyncio.Queue[Any] = asyncio.Queue()
        scope = {
            "type": "websocket",
            "path": "/",
            "query_string": b"",
            "headers": [(b"host", b"localhost")],
            "subprotocols": [f"{PACKAGE}.v1"] if self.contender == "v1" else [],
        }
        serving = application(scope, received.get, self.replies.put)
        self.sockets.append(asyncio.create_task(serving))
        received.put_nowait({"type": "websocket.connect"})
        return received

    async def _hello(self, demultiplexer: Any) -> None:
        """Connect as a client of v1, and open nothing."""
        self._connect(demultiplexer)
        accept, hello = [await self.replies.get() for _ in range(2)]
        assert accept["type"] == "websocket.accept", accept
        assert "hello" in hello["text"], hello

    def _frames(self, payload: Any) -> list[tuple[Callable[[Any], None], Any]]:
        """Return a frame for each stream, with what puts it in the socket."""
        text = json.dumps(payload, separators=(",", ":"))
        return [
            (
                socket.put_nowait,
                {
                    "type": "websocket.receive",
                    "text": f'{{"stream":"{name}","payload":{text}}}' if name else text,
                },
            )
            for socket, name in self.streams
        ]

    async def _exchange(
        self, frames: Iterator[Any], in_flight: int, seconds: float
    ) -> int:
        """Send a frame for each that comes back; return how many have come."""
        get, clock = self.replies.get, time.perf_counter
        for put, message in itertools.islice(frames, in_flight):
            put(message)
        count = 0
        deadline = clock() + seconds
        while clock() < deadline:
            await get()
            count += 1
            put, message = next(frames)
            put(message)
        for _ in range(in_flight):
            await get()
        return count + in_flight

    async def _check(self) -> None:
        """See that each stream echoes, before anyone asks how fast."""
        while not self.replies.empty():
            self.replies.get_nowait()
        for put, message in self._frames(make_payload(30)):
            put(message)
            reply = await self.replies.get()
            assert json.loads(reply["text"]) == json.loads(message["text"]), reply


def make_payload(size: int) -> Any:
    """Return something that takes about *size* bytes of JSON."""
    if size < 100:
        return {"type": "ping", "id": 123456}
    record = {"id": 1, "name": "Ada Lovelace", "price": 12.5, "new": True}
    return {"records": [record] * (size // len(json.dumps(record)))}


async def growth(awaitable: Awaitable[Any]) -> int:
    """Return by how many bytes Python's memory is larger afterwards."""
    # Exact, and the same in every run; the process's own size grows by the page.
    tracemalloc.start()
    gc.collect()
    before, _ = tracemalloc.get_traced_memory()
    await awaitable
    gc.collect()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return after - before


def work(contender: str, package: str) -> None:
    """Do what each line of the standard input says."""
    # Ours and 0.0.3 have one name: the directory says which it is.
    spec = importlib.util.spec_from_file_location(
        PACKAGE, f"{package}/__init__.py", submodule_search_locations=[package]
    )
    assert spec is not None, package
    assert spec.loader is not None, package
    sys.modules[PACKAGE] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    worker = Worker(contender)
    # Between two commands the loop stands still, and every stream with it.
    for line in sys.stdin:
        command, arguments = json.loads(line)
        method: Callable[..., Any] = getattr(worker, command)
        print(json.dumps(loop.run_until_complete(method(**arguments))), flush=True)
    # No farewell to a thousand streams.
    os._exit(0)


# The parent: asks the workers in turn, and prints


class Process:
    """
    A worker, as its parent sees it.
    """

    def __init__(self, python: pathlib.Path, contender: str, package: str) -> None:
        script = str(pathlib.Path(__file__).resolve())
        # Isolated: PYTHONPATH may lead to other versions.
        command = [str(python), "-I", script, "--worker", contender, package]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, command: str, **arguments: Any) -> Any:
        """Return the worker's answer to a command."""
        to_worker, from_worker = self._process.stdin, self._process.stdout
        assert to_worker is not None, "it is a pipe"
        assert from_worker is not None, "it is a pipe"
        print(json.dumps([command, arguments]), file=to_worker, flush=True)
        answer = from_worker.readline()
        if not answer:
            sys.exit("A worker has failed: see above.")
        return json.loads(answer)

    def end(self) -> None:
        """Let the worker end, and wait until it has."""
        self._process.communicate()


class Run:
    """
    What one run has measured, round by round.

    Args:
        python: The interpreter of the workers.

        packages: The directory of each contender's package.
    """

    def __init__(self, python: pathlib.Path, packages: dict[str, str]) -> None:
        self._python = python
        self._packages = packages
        # Frames a second, by contender, cell and clock: one a round.
        self.rates: dict[tuple[str, Cell, str], list[float]] = {}
        # Seconds to open a stream, by contender and number of streams: likewise.
        self.opening: dict[tuple[str, int], list[float]] = {}
        # Tasks and bytes a stream, by contender.
        self.tasks: dict[str, float] = {}
        self.memory: dict[str, float] = {}
        # Bytes and tasks of an application that v1 has named and not opened.
        self.unopened: dict[str, float] = {}
        self.versions: list[str] = []

    def measure_memory(self) -> None:
        """Measure what costs the same in every round."""
        for contender in CONTENDERS:
            process = self._start(contender)
            self.memory[contender] = process.ask("memory", count=MANY)
            process.end()
        process = self._start("v1")
        self.unopened = process.ask("unopened", count=MANY)
        self.versions = process.ask("versions")
        process.end()

    def measure_round(self, number: int, cells: list[Cell], seconds: float) -> None:
        """Measure every cell once, each by all contenders one after the other."""
        # Each goes first in turn.
        first = number % len(CONTENDERS)
        contenders = CONTENDERS[first:] + CONTENDERS[:first]
        # New processes, so that the luck of one (where its memory lies, how its
        # strings hash) is the luck of one round. All start before any is timed.
        workers = {
            (contender, streams): self._start(contender)
            for streams in sorted({cell.streams for cell in cells})
            for contender in contenders
        }
        for worker in workers.values():
            worker.ask("open", count=1)
        for (contender, streams), worker in workers.items():
            opened = worker.ask("open", count=streams)
            times = self.opening.setdefault((contender, streams), [])
            times.append(opened["seconds"])
            # Of the most streams, whose socket has the least share in it.
            self.tasks[contender] = opened["tasks"]
        for cell in cells:
            for contender in contenders:
                rates = workers[contender, cell.streams].ask(
                    "echo", size=cell.size, in_flight=cell.in_flight, seconds=seconds
                )
                for clock, rate in rates.items():
                    self.rates.setdefault((contender, cell, clock), []).append(rate)
        for worker in workers.values():
            worker.end()

    def ratios(
        self, ours: str, cell: Cell, theirs: str, other: Cell, clock: str
    ) -> list[float]:
        """Return by what factor one is faster than the other, in each round."""
        pairs = zip(
            self.rates[ours, cell, clock],
            self.rates[theirs, other, clock],
            strict=True,
        )
        return [one / another for one, another in pairs]

    def _start(self, contender: str) -> Process:
        return Process(self._python, contender, self._packages[contender])


def print_tables(run: Run, cells: list[Cell]) -> None:
    """Print what was measured."""
    names = "".join(f"{name:>9}" for name in CONTENDERS)
    print("\nFrames a second by the wall clock, ratios as median (least-most)\n")
    print(f" size in flight streams{names}    bare / 0.0.3     bare / plain")
    for cell in cells:
        rates = [statistics.median(run.rates[c, cell, "wall"]) for c in CONTENDERS]
        print(
            f"{cell}{''.join(f'{rate:9,.0f}' for rate in rates)}"
            f" {spread(run.ratios('bare', cell, '0.0.3', cell, 'wall'))}"
            f" {spread(run.ratios('bare', cell, 'plain', cell, 'wall'))}"
        )
    print(f"\nWhat one of {MANY} streams costs\n\n{'':23}{names}")
    rows = {"bytes": run.memory, "tasks": run.tasks}
    for streams in sorted({cell.streams for cell in cells}):
        rows[f"us to open, of {streams}"] = {
            contender: statistics.median(run.opening[contender, streams]) * 1e6
            for contender in CONTENDERS
        }
    for name, row in rows.items():
        print(f"{name:23}{''.join(f'{row[c]:9,.0f}' for c in CONTENDERS)}")
    print(
        f"\nNamed and never opened, of {MANY} applications (v1): "
        f"{run.unopened['bytes']:.0f} bytes, {run.unopened['tasks']:.0f} tasks"
    )


def print_promises(run: Run, cells: list[Cell]) -> None:
    """Print what is promised, and if it holds."""
    print(f"\n{'What is promised':42}target   CPU (least-most)   wall\n")
    for promise in promises(cells):
        pair = (promise.ours, promise.cell, promise.theirs, promise.other)
        cpu, wall = (
            statistics.median(run.ratios(*pair, clock)) for clock in ("cpu", "wall")
        )
        # By the processor's time: what else the machine does is not in it.
        if promise.least is None:
            target, verdict = "", ""
        else:
            target = f">={promise.least:4.2f}"
            verdict = "holds" if cpu >= promise.least else "FAILS"
        differ = "*" if abs(wall / cpu - 1) > 0.05 else " "
        where = f"{promise.cell.size}, {promise.cell.in_flight} in flight"
        line = (
            f"{f'{promise.what}, {where}':42}{target:6} "
            f"{spread(run.ratios(*pair, 'cpu'))}  {wall:5.2f}{differ} {verdict}"
        )
        print(line.rstrip())
    for name in ("bare", "v1"):
        ratio = run.memory[name] / run.memory["plain"]
        print_memory(f"bytes a stream, {name} / plain", ratio, 0.85)
    ratio = run.unopened["bytes"] / run.memory["v1"]
    print_memory("bytes, v1, never opened / opened", ratio, 0.01)
    print("\n* The clocks differ by more than 5%: the machine was busy.")


def print_memory(what: str, ratio: float, most: float) -> None:
    """Print what is promised of memory, which is the same in every round."""
    verdict = "holds" if ratio <= most else "FAILS"
    print(f"{what:42}<={most:4.2f} {ratio:5.2f}  {verdict}")


def promises(cells: list[Cell]) -> Iterator[Promise]:
    """Return what is promised about these cells."""
    at_ten = [cell for cell in cells if cell.streams == 10]
    for cell in at_ten:
        least = 2.5 if cell.size == "16 kB" else 2.0
        yield Promise("bare / 0.0.3", "bare", cell, "0.0.3", cell, least)
    for cell in at_ten:
        # One consumer on a socket of its own, which takes one frame after the other.
        one = dataclasses.replace(cell, streams=1)
        least = 1.5 if cell.size == "30 B" else 1.0
        least = 0.93 if cell.in_flight == 1 else least
        yield Promise("bare / plain", "bare", cell, "plain", one, least)
    for cell in at_ten:
        yield Promise("bare / ten sockets", "bare", cell, "plain", cell, None)
    for cell in at_ten:
        # The same, to within what two runs of one program differ by.
        yield Promise("v1 / bare", "v1", cell, "bare", cell, 0.97)
    for cell in cells:
        if cell.streams == 1000:
            ten = dataclasses.replace(cell, streams=10)
            yield Promise("1000 streams / 10", "bare", cell, "bare", ten, 1 / 1.25)


def spread(ratios: list[float]) -> str:
    """Return the median of ratios, and how far they lie apart."""
    return f"{statistics.median(ratios):5.2f} ({min(ratios):.2f}-{max(ratios):.2f})"


def find_python(directory: pathlib.Path) -> pathlib.Path:
    """Return the interpreter of the workers; make its environment if it isn't there."""
    on_windows = os.name == "nt"
    python = directory / ("Scripts/python.exe" if on_windows else "bin/python")
    # Written last: what is there without it was interrupted.
    stamp = directory / "requirements.txt"
    wanted = "\n".join([*REQUIREMENTS, sys.version])
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"Making {directory}", file=sys.stderr)
        venv.create(directory, with_pip=True)
        pip = [str(python), "-I", "-m", "pip", "install", "-q", *REQUIREMENTS]
        subprocess.run(pip, check=True)
        stamp.write_text(wanted)
    return python


def find_packages(python: pathlib.Path) -> dict[str, str]:
    """Return the directory that each contender's package is in."""
    ours = importlib.util.find_spec(PACKAGE)
    if ours is None or ours.origin is None:
        sys.exit(f"{PACKAGE} isn't installed: pip install, or PYTHONPATH=. python ...")
    code = f"import importlib.util as u; print(u.find_spec({PACKAGE!r}).origin)"
    old = subprocess.check_output([str(python), "-I", "-c", code], text=True)
    by_origin = dict.fromkeys(CONTENDERS, ours.origin) | {"0.0.3": old.strip()}
    return {name: str(pathlib.Path(by_origin[name]).parent) for name in CONTENDERS}


def default_venv() -> pathlib.Path:
    """Return where the environment of the workers is kept between two runs."""
    name = f"channelsmultiplexer-bench-{sys.version_info[0]}.{sys.version_info[1]}"
    try:
        cache = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    except RuntimeError:
        cache = tempfile.gettempdir()
    return pathlib.Path(cache) / name


def main() -> None:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the promises only, 30 s")
    parser.add_argument("--rounds", type=int, help="how often each cell is measured")
    parser.add_argument("--venv", type=pathlib.Path, default=default_venv())
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker is not None:
        return work(*options.worker)
    python = find_python(options.venv)
    run = Run(python, find_packages(python))
    if options.quick:
        rounds, seconds, streams = options.rounds or 6, 0.1, [1, 10]
    else:
        rounds, seconds, streams = options.rounds or 7, 0.2, STREAMS
    cells = list(itertools.starmap(Cell, itertools.product(SIZES, IN_FLIGHT, streams)))
    run.measure_memory()
    for number in range(rounds):
        print(f"Round {number + 1} of {rounds}", file=sys.stderr)
        run.measure_round(number, cells, seconds)
    print(
        f"{platform.python_implementation()} {platform.python_version()}, "
        f"{', '.join(run.versions)}; {platform.system()} {platform.machine()}, "
        f"{os.cpu_count()} processors; {rounds} rounds of {seconds} s"
    )
    print_tables(run, cells)
    print_promises(run, cells)


if __name__ == "__main__":
    main()
