"""
What all tests share.
"""

from __future__ import annotations

import asyncio
import inspect
import signal

import pytest

import redis_server
from channelsmultiplexer.pubsub import Multiplexer
from guard import open_sockets
from puppets import Puppets
from recorder import Recorder


def pytest_configure() -> None:
    """
    Let the programs that the tests start be interrupted.

    What a shell starts in the background ignores SIGINT, as does what that starts.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """
    Let tests with consumers use the database.

    Channels looks after the database's connections at every dispatch, and
    pytest-django forbids that to tests that don't say so.
    """
    for item in items:
        is_async = inspect.iscoroutinefunction(getattr(item, "obj", None))
        if is_async and item.get_closest_marker("django_db") is None:
            item.add_marker(pytest.mark.django_db)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """
    Leave slow tests to those who ask for them.
    """
    is_slow = item.get_closest_marker("slow") is not None
    if is_slow and "slow" not in item.config.option.markexpr:
        pytest.skip("slow: runs with -m slow")


@pytest.fixture(scope="session")
def redis_process():
    """
    Run one Redis server for all tests that don't harm it.
    """
    with redis_server.server("--enable-debug-command", "yes") as server:
        yield server


@pytest.fixture
def redis(redis_process):
    """
    Return the Redis server, as new.
    """
    yield redis_process
    redis_process.call("CLIENT", "KILL", "TYPE", "pubsub")
    redis_process.call(
        "ACL", "SETUSER", "default", "reset", "on", "nopass", "+@all", "~*", "&*"
    )


@pytest.fixture
async def mpx(redis):
    """
    Return a Multiplexer with a link.
    """
    async with Multiplexer(redis.url) as mpx:
        yield mpx


@pytest.fixture
def recorder():
    """
    Return callbacks that note what they are told.
    """
    return Recorder()


@pytest.fixture
def puppets():
    """
    Return applications for the test to drive.
    """
    return Puppets()


@pytest.fixture
async def nothing_left():
    """
    Fail the test if it leaves a task or a socket behind.
    """
    tasks, sockets = asyncio.all_tasks(), open_sockets()
    yield
    left = asyncio.all_tasks() - tasks - {asyncio.current_task()}
    if left:
        await asyncio.wait(left, timeout=1)
    assert not [task for task in left if not task.done()]
    # A transport that is aborted closes its socket on the event loop's next turn.
    await asyncio.sleep(0)
    assert not open_sockets() - sockets


@pytest.fixture(params=["websockets", "picows"])
def transport(request):
    """
    Return the name of a transport that is installed.
    """
    if request.param == "picows":
        pytest.importorskip("picows")
    return request.param
