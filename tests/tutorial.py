"""
Follows the tutorial as a reader does: writes its files, runs its commands.
"""

from __future__ import annotations

import contextlib
import re
import shlex
import shutil
import signal
import socket
import sys
import textwrap
import time
from pathlib import Path

import channelsmultiplexer
from redis_server import free_port
from server_process import LoggedProcess

__all__ = ["PAGES", "Reader", "blocks"]

DOCS = Path(__file__).parent.parent / "docs"

# In the order of the tutorial's table of contents.
PAGES = re.findall(r"^   tutorial/(\w+)$", (DOCS / "tutorial.rst").read_text(), re.M)

BLOCK = re.compile(
    r"^\.\. code-block:: (\S+)\n(?:    :caption: (.+)\n)?\n((?:(?: {4}.*)?\n)+)", re.M
)

# What a reader stops by Ctrl-C, and what it says when it is ready.
LASTING = {"manage.py runserver": "Quit the server", "robot.py": "robot says"}

# The environment is there, and has the package.
INSTALLING = ("python3 -m venv", ". .venv/", "pip install")


def blocks(page: str) -> list[tuple[str, str, str]]:
    """
    Return language, caption and content of the code blocks of a page.
    """
    found = BLOCK.findall((DOCS / "tutorial" / f"{page}.rst").read_text())
    return [(kind, name, textwrap.dedent(text).strip()) for kind, name, text in found]


class Reader:
    """
    Somebody at a shell, in a folder that is empty at first.

    Attributes:
        url: Where the page is.

        running: The programs that run, by their commands.
    """

    def __init__(self, folder: Path) -> None:
        self.running: dict[str, LoggedProcess] = {}
        self._folder = folder
        # Other tests have a server, too: not on port 8000, then.
        self._address = f"127.0.0.1:{free_port()}"
        self.url = f"http://{self._address}/"
        self._pages = list(PAGES)
        # What the last command has said.
        self._said = ""
        # If the server runs by a file that has changed.
        self._is_outdated = False
        # Where "python" and "django-admin" are.
        self._path = str(Path(sys.executable).parent)
        self._environment = {
            "PYTHONPATH": str(Path(channelsmultiplexer.__file__).parent.parent),
            # Ours is that of the demo.
            "DJANGO_SETTINGS_MODULE": "mysite.settings",
        }

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *exc_info: object) -> None:
        with contextlib.ExitStack() as stack:
            for process in self.running.values():
                stack.callback(process.stop)

    def follow(self, last: str) -> None:
        """
        Do what the pages say that have not been followed, up to this one.

        Raises:
            AssertionError: If something says other than what they have it say.
        """
        while last in self._pages:
            for kind, name, text in blocks(self._pages.pop(0)):
                if name:
                    # What is new the server hasn't loaded, and tests it never does.
                    self._is_outdated |= self._write(name, text) and "test" not in name
                elif kind == "shell":
                    self._run(text)
                else:
                    self._compare(text)
            if self._is_outdated and self.running:
                self.restart()

    def stop(self) -> None:
        """
        Stop the server, as Ctrl-C does.
        """
        self.running.pop("manage.py runserver").stop(signal.SIGINT)

    def start(self) -> None:
        """
        Start the server.
        """
        self._run("python manage.py runserver")

    def restart(self) -> None:
        """
        Do as the server does when a file has changed, without its waiting for that.
        """
        self.stop()
        self.start()

    def _write(self, name: str, text: str) -> bool:
        """Write a file, or the end of one, and tell if it was there before."""
        path, _, end = name.partition(", ")
        file = self._folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        is_old = file.exists()
        before = file.read_text() if end else ""
        file.write_text(self._here(f"{before}\n{text}\n"))
        return is_old

    def _run(self, text: str) -> None:
        for line in self._here(text).splitlines():
            program = line.removeprefix("python ")
            if program in LASTING:
                self._leave_running(program)
            elif not line.startswith(INSTALLING):
                self._said = self._call(line)

    def _leave_running(self, program: str) -> None:
        if program in self.running:
            self.running.pop(program).stop(signal.SIGINT)
        arguments = program.split()
        if "runserver" in arguments:
            self._is_outdated = False
            arguments += [self._address, "--noreload"]
        process = self._process([sys.executable, *arguments])
        self.running[program] = process.__enter__()
        process.wait_log(LASTING[program])
        if "runserver" in arguments:
            self._wait_listening()
        self._said = process.take_log()

    def _wait_listening(self) -> None:
        """Wait until the server listens: it says so before."""
        for _ in range(1000):
            with contextlib.suppress(ConnectionRefusedError):
                return socket.create_connection(self._address.split(":")).close()
            time.sleep(0.02)
        raise TimeoutError(f"nothing listens at {self._address}")

    def _call(self, line: str) -> str:
        with self._process(shlex.split(line)) as process:
            code, log = process.wait(), process.take_log()
        assert code == 0, f"{line}\n{log}"
        return log

    def _process(self, command: list[str]) -> LoggedProcess:
        command[0] = shutil.which(command[0], path=self._path) or command[0]
        return LoggedProcess(command, cwd=self._folder, environment=self._environment)

    def _here(self, text: str) -> str:
        return text.replace("127.0.0.1:8000", self._address)

    def _compare(self, text: str) -> None:
        """Hold what was said last to *text*: numbers differ, and "..." is anything."""
        pattern = re.escape(re.sub(r"[\d.]*\d", "0", text)).replace(r"\.\.\.", ".*")
        said = re.sub(r"[\d.]*\d", "0", self._said)
        assert re.search(pattern, said, re.DOTALL), f"{text}\n---\n{self._said}"
