"""
What is installed, and what is not.
"""

from __future__ import annotations

import email
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import channelsmultiplexer

ROOT = Path(__file__).parent.parent

FILES = {
    "__init__.py",
    "__main__.py",
    "apps.py",
    "backoff.py",
    "checks.py",
    "client/__init__.py",
    "client/channels.py",
    "client/connection.py",
    "client/dialects.py",
    "client/events.py",
    "client/filters.py",
    "client/handlers.py",
    "client/limits.py",
    "client/link.py",
    "client/liveness.py",
    "client/memory.py",
    "client/multiplex.py",
    "client/opener.py",
    "client/processors.py",
    "client/renewal.py",
    "client/requests.py",
    "client/router.py",
    "client/stats.py",
    "client/subscriptions.py",
    "client/supervisor.py",
    "client/transports.py",
    "control.py",
    "demultiplexer.py",
    "dialects.py",
    "envelope.py",
    "exceptions.py",
    "inbox.py",
    "mailbox.py",
    "management/__init__.py",
    "management/commands/__init__.py",
    "management/commands/multiplexer_streams.py",
    "pubsub/__init__.py",
    "pubsub/address.py",
    "pubsub/callbacks.py",
    "pubsub/connection.py",
    "pubsub/consumer.py",
    "pubsub/link.py",
    "pubsub/deadline.py",
    "pubsub/dispatcher.py",
    "pubsub/listening.py",
    "pubsub/multiplexer.py",
    "pubsub/promises.py",
    "pubsub/registry.py",
    "pubsub/subscriptions.py",
    "py.typed",
    "routes.py",
    "static/channelsmultiplexer/debug.css",
    "static/channelsmultiplexer/debug.js",
    "static/channelsmultiplexer/multiplex.d.ts",
    "static/channelsmultiplexer/multiplex.js",
    "signals.py",
    "stats.py",
    "stream.py",
    "streams.py",
    "templates/channelsmultiplexer/debug.html",
    "templatetags/__init__.py",
    "templatetags/channelsmultiplexer.py",
    "testing.py",
    "urls.py",
    "views.py",
    "websocket.py",
}


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    """
    Build both distributions, the wheel from the source distribution.
    """
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def wheel(dist):
    """
    Open the wheel.
    """
    (path,) = dist.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


def test_wheel_contents(wheel):
    """The wheel holds the package and nothing else."""
    files = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert files == {f"channelsmultiplexer/{name}" for name in FILES}


def test_wheel_metadata(wheel):
    """The wheel says its version, its floor, and its two dependencies."""
    (name,) = (name for name in wheel.namelist() if name.endswith("/METADATA"))
    metadata = email.message_from_bytes(wheel.read(name))
    assert metadata["Version"] == channelsmultiplexer.__version__
    assert metadata["Requires-Python"] == ">=3.10"
    required = [r for r in metadata.get_all("Requires-Dist") if "extra ==" not in r]
    assert sorted(r.lower() for r in required) == [
        "channels<5,>=4.1",
        "django>=4.2",
        "msgspec>=0.19",
    ]
    extras = {"client", "daphne", "demo", "docs", "fast", "redis", "tests"}
    assert set(metadata.get_all("Provides-Extra")) == extras


def test_source_distribution(dist):
    """The source distribution holds what it takes to run the tests and the demo."""
    (path,) = dist.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        files = {name.partition("/")[2] for name in archive.getnames()}
    assert {"tests/test_package.py", "testproject/manage.py", "tox.ini"} <= files
    assert not any("__pycache__" in name or ".sqlite3" in name for name in files)
