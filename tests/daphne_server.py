"""
Daphne in a process of its own, to be killed and started again.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from concurrent.futures import Future

__all__ = ["DaphneServer"]

# Seconds in which Daphne starts on a slow machine.
TIMEOUT = 30


class DaphneServer:
    """
    Serves one application while the context lasts, always on the same port.

    What Daphne logs goes to standard error, where pytest shows it with the test that
    fails.

    Args:
        application: Where the application is, as ``module:attribute``.

    Attributes:
        port: Where it listens on 127.0.0.1; the system chooses it at the first start.
    """

    def __init__(self, application: str) -> None:
        self.port = 0
        self._application = application

    def __enter__(self) -> DaphneServer:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.kill()

    def start(self) -> None:
        """
        Start, and wait until it listens.

        Raises:
            ChildProcessError: If it ends instead.
        """
        command = [sys.executable, "-m", "daphne", "--bind", "127.0.0.1"]
        self._process = subprocess.Popen(
            [*command, "--port", str(self.port), self._application],
            # It imports what the tests do.
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        listening: Future[int] = Future()
        # A thread, since a process whose pipe is full would stop.
        self._reader = threading.Thread(target=self._read, args=[listening])
        self._reader.start()
        try:
            self.port = listening.result(TIMEOUT)
        except BaseException:
            self.kill()
            raise

    def kill(self) -> None:
        """
        Kill it, and wait until it is gone, and its sockets with it.
        """
        self._process.kill()
        self._process.wait()
        self._reader.join()
        self._process.stdout.close()

    def _read(self, listening: Future[int]) -> None:
        for line in self._process.stdout:
            sys.stderr.write(line)
            match = re.search(r"Listening on TCP address 127\.0\.0\.1:(\d+)", line)
            if match:
                listening.set_result(int(match[1]))
        if not listening.done():
            listening.set_exception(
                ChildProcessError("Daphne ended before it listened")
            )
