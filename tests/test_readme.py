"""
What the README shows runs.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import textwrap
import time
import urllib.request
from importlib.metadata import metadata
from pathlib import Path
from urllib.error import URLError

import pytest
from channels.testing import WebsocketCommunicator
from django.template import Context, Template

import channelsmultiplexer
from requirement import program
from server_process import ServerProcess

ROOT = Path(__file__).parent.parent

README = (ROOT / "README.rst").read_text()

MODULE = Path(channelsmultiplexer.__file__).with_name("static")
MODULE /= "channelsmultiplexer/multiplex.js"

# The lines that each JavaScript block writes to the console.
CONSOLE = [
    ['echo says {"hello":"world"}', "room 42: hi"],
    [],
]

# Serves what the Python blocks define at the URLs that the JavaScript blocks use.
SERVER = """
import os
os.environ["DJANGO_SETTINGS_MODULE"] = "demo.settings"
INSTALLED_APPS = []
{blocks}
application = URLRouter([path("ws/", mounted)])
"""

# Runs one JavaScript block as a page would, and ends once it has written what it
# writes.
PAGE = """
globalThis.location = new URL(process.argv[2]);
const lines = Number(process.argv[4]);
let written = 0;
let enough;
const all = new Promise((resolve) => (enough = resolve));
console.log = (...args) => {
  process.stdout.write(args.map((arg) => typeof arg === "string" ? arg
    : JSON.stringify(arg).replaceAll('"', "'").replace(":", ": ")).join(" ") + "\\n");
  if (++written >= lines) enough();
};
await import(process.argv[3]);
if (written < lines) await all;
process.exit(0);
"""


def blocks(language):
    """
    Return the README's code blocks in a language.
    """
    pattern = rf"^\.\. code-block:: {re.escape(language)}\n\n((?:(?: {{4}}.*)?\n)+)"
    return [textwrap.dedent(b) for b in re.findall(pattern, README, re.MULTILINE)]


@pytest.fixture(scope="module")
def python():
    """
    Run the Python blocks, one after the other, and return what they define.
    """
    # Settings have these before they have what a block adds.
    names = {"INSTALLED_APPS": []}
    for block in blocks("python"):
        exec(block, names)
    return names


def test_all_blocks_are_known():
    """Every code block is in a language that a test here runs."""
    languages = re.findall(r"^\.\. code-block:: (\S+)$", README, re.MULTILINE)
    known = {"python", "javascript", "html+django", "json", "shell"}
    assert set(languages) == known
    assert len(blocks("javascript")) == len(CONSOLE)


async def test_python(python):
    """The Python blocks run, and the test among them passes."""
    await python["test_room"]()


async def test_json(python):
    """The frame that is shown is a frame."""
    client = WebsocketCommunicator(python["application"], "/ws/")
    await client.connect()
    (block,) = blocks("json")
    await client.send_to(text_data=block)
    assert await client.receive_json_from() == json.loads(block)
    await client.disconnect()


def test_template():
    """The template renders an import map before the page's module."""
    (block,) = blocks("html+django")
    html = Template(block).render(Context())
    assert html.index("importmap") < html.index('src="/static/page.js"')


def test_shell():
    """What is to be installed is called what it is called."""
    name = metadata("channelsmultiplexer")["Name"]
    assert "".join(blocks("shell")).split() == ["pip", "install", name]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """
    Serve what the Python blocks define.
    """
    folder = tmp_path_factory.mktemp("readme")
    source = SERVER.format(blocks="\n".join(blocks("python")))
    (folder / "readme_asgi.py").write_text(source)
    sys.path.append(str(folder))
    try:
        with ServerProcess("uvicorn", "readme_asgi:application") as server:
            yield server
    finally:
        sys.path.remove(str(folder))


@pytest.mark.parametrize("number", range(len(CONSOLE)))
def test_javascript(server, tmp_path, number):
    """A JavaScript block runs, and writes what it should to the console."""
    block = blocks("javascript")[number].replace('"channelsmultiplexer"', f'"{MODULE}"')
    (tmp_path / "block.mjs").write_text(block)
    (tmp_path / "page.mjs").write_text(PAGE)
    url = server.url.replace("ws:", "http:")
    # Node 20 has WebSocket behind this flag; later versions take the flag, too.
    command = [program("node"), "--experimental-websocket", "page.mjs"]
    command += [f"{url}/page/", "./block.mjs", str(len(CONSOLE[number]))]
    run = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=30
    )
    assert run.returncode == 0, run.stderr
    assert sorted(run.stdout.splitlines()) == sorted(CONSOLE[number])


def test_set_up_commands():
    """There are two set-up commands, one line each: the demo's and the tests'."""
    commands = re.findall(r"^    (python3 -m venv .*)$", README, re.MULTILINE)
    ends = [command.rpartition(" && ")[2] for command in commands]
    assert ends == [
        ".venv/bin/python testproject/manage.py runserver",
        ".venv/bin/pytest",
    ]


def test_demo(tmp_path):
    """The demo's command serves its page, on nothing but what is in the box."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    command = [sys.executable, "testproject/manage.py", "runserver", "--noreload", port]
    env = {**os.environ, "DEMO_DATABASE": str(tmp_path / "demo.sqlite3")}
    with subprocess.Popen(command, cwd=ROOT, env=env) as demo:
        try:
            assert "channelsmultiplexer" in read(f"http://127.0.0.1:{port}/")
        finally:
            demo.terminate()


def read(url):
    """
    Return a page, once its server listens: it says so to nobody.
    """
    for _ in range(300):
        try:
            with urllib.request.urlopen(url) as page:
                return page.read().decode()
        except URLError:
            time.sleep(0.1)
    raise TimeoutError(f"nothing listens at {url}")
