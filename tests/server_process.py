"""
Programs in processes of their own, ASGI servers above all.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence

__all__ = ["SERVERS", "LoggedProcess", "ServerProcess"]

# What runs each server on a port that the system chooses. The rest is as it comes,
# so the WebSocket implementation is the server's default.
SERVERS = {
    "daphne": ["--bind", "127.0.0.1", "--port", "0"],
    "uvicorn": ["--host", "127.0.0.1", "--port", "0"],
    # With one worker, its default, the application would run in a child of this
    # process, which does not end with it.
    "hypercorn": ["--bind", "127.0.0.1:0", "--workers", "0"],
}

# Seconds in which a server starts, logs and stops, on a slow machine.
TIMEOUT = 20


class LoggedProcess:
    """
    A program that runs while the context lasts, and whose log can be waited for.

    Args:
        command: The program and its arguments.

        cwd: The directory that it runs in; ours unless given.

        environment: Variables that it has beside ours.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        cwd: str | os.PathLike[str] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._command = command
        self._cwd = cwd
        self._environment = environment or {}
        # What the program has written since the last take_log().
        self._log = ""
        # Notified when there is more of it, or will never be.
        self._logged = threading.Condition()
        # If the program will write no more.
        self._silent = False

    def __enter__(self) -> LoggedProcess:
        self._process = subprocess.Popen(
            self._command,
            cwd=self._cwd,
            # It imports what the tests do.
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path)),
                "PYTHONUNBUFFERED": "1",
                # In development mode asyncio warns of whatever takes 0.1 seconds,
                # which on a busy machine is anything.
                "PYTHONDEVMODE": "",
                **self._environment,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        # A thread, since a program whose pipe is full would stop.
        self._reader = threading.Thread(target=self._read_log)
        self._reader.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def stop(self, number: int = signal.SIGTERM) -> int:
        """
        Stop the program by a signal, and return what it returned.
        """
        self._process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """
        Wait until the program ends, and return what it returned. It's killed if it
        doesn't.
        """
        try:
            self._process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        self._process.stdout.close()
        return self._process.returncode

    def wait_log(self, pattern: str) -> re.Match[str]:
        """
        Wait until what the program logs matches *pattern*.

        Raises:
            AssertionError: If it doesn't, with the log.
        """
        with self._logged:
            self._logged.wait_for(
                lambda: self._silent or re.search(pattern, self._log), TIMEOUT
            )
            match = re.search(pattern, self._log)
            if match is None:
                raise AssertionError(f"no {pattern!r} in this log:\n{self._log}")
            return match

    def take_log(self) -> str:
        """
        Return what the program has logged since the last call.
        """
        with self._logged:
            log, self._log = self._log, ""
            return log

    def _read_log(self) -> None:
        for line in self._process.stdout:
            with self._logged:
                self._log += line
                self._logged.notify_all()
        with self._logged:
            self._silent = True
            self._logged.notify_all()


class ServerProcess(LoggedProcess):
    """
    A server that serves one application while the context lasts.

    Args:
        name: One of :data:`SERVERS`.

        application: Where the application is, as ``module:attribute``.

    Attributes:
        url: Where the server listens.
    """

    def __init__(self, name: str, application: str) -> None:
        super().__init__([sys.executable, "-m", name, *SERVERS[name], application])
        self.name = name

    def __enter__(self) -> ServerProcess:
        super().__enter__()
        try:
            # All three say where they listen once they do.
            self.url = "ws://" + self.wait_log(r"127\.0\.0\.1:[1-9]\d*")[0]
        except BaseException:
            self.stop()
            raise
        return self
