"""
A queue with one reader: its bounds, its ends, and what cancelling loses: nothing.
"""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from channelsmultiplexer.exceptions import InboxClosed, InboxFull
from channelsmultiplexer.inbox import Inbox
from guard import blocked, soon

LIMIT = 10


@pytest.fixture
def inbox():
    """
    An inbox with room for LIMIT items of size 1.
    """
    return Inbox(LIMIT)


@pytest.fixture
def full():
    """
    An inbox without room.
    """
    inbox = Inbox(LIMIT)
    inbox.put_nowait("first", LIMIT)
    return inbox


@pytest.fixture
def held():
    """
    An inbox with an item that is held.
    """
    inbox = Inbox(LIMIT, held=True)
    inbox.put_nowait("first")
    return inbox


async def drain(inbox, last):
    """
    Return all that waits in an inbox, by closing it.
    """
    inbox.close(last)
    items = []
    while True:
        item = await soon(inbox.get())
        if item is last:
            return items
        items.append(item)


# put_nowait()


async def test_in_order(inbox):
    """Items come out in the order in which they went in."""
    for number in range(3):
        inbox.put_nowait(number)
    assert [await soon(inbox.get()) for _ in range(3)] == [0, 1, 2]


async def test_none_is_an_item(inbox):
    """Any object can wait, None included."""
    inbox.put_nowait(None)
    inbox.put_nowait("after")
    assert await soon(inbox.get()) is None
    assert await soon(inbox.get_soon()) == "after"


def test_counts_sizes(inbox):
    """The limit is on the sum of the sizes."""
    inbox.put_nowait("a", 4)
    inbox.put_nowait("b", 6)
    with pytest.raises(InboxFull) as caught:
        inbox.put_nowait("c", 1)
    assert (caught.value.size, caught.value.limit) == (10, LIMIT)


def test_size_is_one(inbox):
    """An item's size is 1, unless it is said otherwise."""
    for number in range(LIMIT):
        inbox.put_nowait(number)
    with pytest.raises(InboxFull):
        inbox.put_nowait("one more")


async def test_full_changes_nothing(full):
    """An item that doesn't fit isn't added, and a smaller one may fit."""
    assert await soon(full.get()) == "first"
    full.put_nowait("second", LIMIT - 1)
    with pytest.raises(InboxFull):
        full.put_nowait("large", 2)
    full.put_nowait("small", 1)
    assert await drain(full, last="last") == ["second", "small"]


async def test_get_makes_room(full):
    """An item that was got takes no room."""
    assert await soon(full.get()) == "first"
    full.put_nowait("second", LIMIT)
    assert await soon(full.get()) == "second"


async def test_oversize(inbox):
    """An item larger than the limit is taken when nothing else waits."""
    inbox.put_nowait("large", LIMIT + 1)
    with pytest.raises(InboxFull):
        inbox.put_nowait("small", 0)
    assert await soon(inbox.get()) == "large"
    inbox.put_nowait("large again", LIMIT * 2)
    assert await soon(inbox.get()) == "large again"


def test_oversize_behind_another(inbox):
    """An item larger than the limit isn't taken while another waits."""
    inbox.put_nowait("small")
    with pytest.raises(InboxFull):
        inbox.put_nowait("large", LIMIT + 1)


def test_held_counts(held):
    """What is held takes room."""
    with pytest.raises(InboxFull):
        held.put_nowait("large", LIMIT)


# put()


async def test_put_fits(inbox):
    """put() returns at once when there is room."""
    await soon(inbox.put("a", LIMIT))
    assert await soon(inbox.get()) == "a"


async def test_put_waits(full):
    """put() adds its item when there is room."""
    putting = await blocked(full.put("second"))
    assert await soon(full.get()) == "first"
    await soon(putting)
    assert await soon(full.get()) == "second"


async def test_put_waits_for_room_enough(inbox):
    """put() waits on until there is room for all of its item."""
    inbox.put_nowait("a", 5)
    inbox.put_nowait("b", 5)
    putting = await blocked(inbox.put("large", 6))
    assert await soon(inbox.get()) == "a"
    assert await blocked(putting)
    assert await soon(inbox.get()) == "b"
    await soon(putting)
    assert await soon(inbox.get()) == "large"


async def test_put_oversize_waits(inbox):
    """put() adds an item larger than the limit when nothing else waits."""
    inbox.put_nowait("small")
    putting = await blocked(inbox.put("large", LIMIT + 1))
    assert await soon(inbox.get()) == "small"
    await soon(putting)
    assert await soon(inbox.get()) == "large"


async def test_puts_wait_in_order(full):
    """Those who wait for room get it in the order in which they came."""
    second = await blocked(full.put("second", LIMIT))
    third = await blocked(full.put("third", LIMIT))
    assert await soon(full.get()) == "first"
    await soon(second)
    assert await blocked(third)
    assert await soon(full.get()) == "second"
    await soon(third)
    assert await soon(full.get()) == "third"


async def test_get_soon_makes_room(full):
    """put() adds its item when get_soon has made room."""
    putting = await blocked(full.put("second"))
    assert full.get_soon().result() == "first"
    await soon(putting)
    assert full.get_soon().result() == "second"


async def test_put_cancelled_before(full):
    """put() adds nothing if it is cancelled before it starts."""
    putting = asyncio.ensure_future(full.put("second"))
    putting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await soon(putting)
    assert await drain(full, last="last") == ["first"]


async def test_put_cancelled_during(full):
    """put() adds nothing if it is cancelled while it waits."""
    putting = await blocked(full.put("second"))
    putting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await soon(putting)
    assert await drain(full, last="last") == ["first"]


async def test_put_cancelled_with_room(full):
    """put() adds nothing, and keeps no room, if it is cancelled when there is some."""
    second = await blocked(full.put("second"))
    third = await blocked(full.put("third", LIMIT))
    assert full.get_soon().result() == "first"
    second.cancel()
    await soon(third)
    assert second.cancelled()
    assert await drain(full, last="last") == ["third"]


# close()


async def test_close(inbox):
    """The last item comes after those that wait."""
    inbox.put_nowait("a")
    inbox.close("last")
    assert await soon(inbox.get()) == "a"
    assert await soon(inbox.get()) == "last"


async def test_close_full(full):
    """The last item is added whatever the limit."""
    full.close("last")
    assert await soon(full.get()) == "first"
    assert await soon(full.get()) == "last"


async def test_close_wakes_get(inbox):
    """The last item reaches a reader who waits for it."""
    getting = await blocked(inbox.get())
    inbox.close("last")
    assert await soon(getting) == "last"


async def test_closed_takes_nothing(inbox):
    """Nothing can be put in a closed inbox, by either way."""
    inbox.close("last")
    with pytest.raises(InboxClosed):
        inbox.put_nowait("more")
    with pytest.raises(InboxClosed):
        await soon(inbox.put("more"))


async def test_closed_while_put_waits(full):
    """Those who wait for room are told that there won't be any."""
    waiting = [await blocked(full.put(number)) for number in range(2)]
    full.close("last")
    for putting in waiting:
        with pytest.raises(InboxClosed):
            await soon(putting)
    assert await soon(full.get()) == "first"
    assert await soon(full.get()) == "last"


def test_close_once(inbox):
    """Closing an inbox twice is a mistake of ours, and adds no second last item."""
    inbox.close("last")
    with pytest.raises(AssertionError, match="closed once"):
        inbox.close("really the last")


# get()


async def test_get_waits(inbox):
    """get() returns an item when it is put."""
    getting = await blocked(inbox.get())
    inbox.put_nowait("a")
    assert await soon(getting) == "a"


async def test_get_twice(inbox):
    """get() waits as often as it has to."""
    for item in ("a", "b"):
        getting = await blocked(inbox.get())
        inbox.put_nowait(item)
        assert await soon(getting) == item


async def test_get_cancelled_before(inbox):
    """get() loses nothing if it is cancelled before it starts."""
    inbox.put_nowait("a")
    getting = asyncio.ensure_future(inbox.get())
    getting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await soon(getting)
    assert await soon(inbox.get()) == "a"


async def test_get_cancelled_during(inbox):
    """get() loses nothing if it is cancelled while it waits."""
    getting = await blocked(inbox.get())
    getting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await soon(getting)
    inbox.put_nowait("a")
    assert await soon(inbox.get()) == "a"


async def test_get_cancelled_with_an_item(inbox):
    """get() loses nothing if it is cancelled when its item is there."""
    getting = await blocked(inbox.get())
    inbox.put_nowait("a")
    getting.cancel()
    inbox.put_nowait("b")
    with pytest.raises(asyncio.CancelledError):
        await soon(getting)
    assert await drain(inbox, last="last") == ["a", "b"]


async def test_get_times_out(inbox):
    """A reader may give up and come back."""
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(inbox.get(), 0.001)
    inbox.put_nowait("a")
    assert await soon(inbox.get()) == "a"


async def test_one_reader(inbox):
    """A second reader at the same time is a mistake of ours, and harms no item."""
    getting = await blocked(inbox.get())
    with pytest.raises(RuntimeError, match="another task is reading"):
        await soon(inbox.get())
    inbox.put_nowait("a")
    assert await soon(getting) == "a"


async def test_cleared_before_get_resumes(inbox):
    """A reader who was woken for an item that is gone waits for the next."""
    getting = await blocked(inbox.get())
    inbox.put_nowait("a")
    inbox.clear()
    assert await blocked(getting)
    inbox.put_nowait("b")
    assert await soon(getting) == "b"


# get_soon()


async def test_get_soon_ready(inbox):
    """get_soon's future is done if an item waits."""
    inbox.put_nowait("a")
    inbox.put_nowait("b")
    assert inbox.get_soon().result() == "a"
    assert inbox.get_soon().result() == "b"


async def test_get_soon_pending(inbox):
    """get_soon's future gets the next item as it is put."""
    future = inbox.get_soon()
    assert not future.done()
    inbox.put_nowait("a")
    assert future.result() == "a"


async def test_get_soon_gets_one(inbox):
    """get_soon's future gets one item and leaves the others."""
    future = inbox.get_soon()
    inbox.put_nowait("a")
    inbox.put_nowait("b")
    assert (future.result(), inbox.get_soon().result()) == ("a", "b")


async def test_get_soon_takes_no_room(inbox):
    """An item that goes straight to its reader takes no room."""
    inbox.get_soon()
    inbox.put_nowait("a", LIMIT)
    inbox.put_nowait("b", LIMIT)
    assert inbox.get_soon().result() == "b"


async def test_get_soon_is_a_future(inbox):
    """ensure_future takes get_soon's future as it is, and makes no task."""
    future = inbox.get_soon()
    assert asyncio.ensure_future(future) is future
    assert not isinstance(future, asyncio.Task)


async def test_get_soon_closed(inbox):
    """get_soon's future gets the last item too."""
    future = inbox.get_soon()
    inbox.close("last")
    assert future.result() == "last"


async def test_get_soon_abandoned(inbox):
    """An item doesn't go to a future that was cancelled."""
    inbox.get_soon().cancel()
    inbox.put_nowait("a")
    inbox.put_nowait("b")
    assert inbox.get_soon().result() == "a"
    assert inbox.get_soon().result() == "b"


async def test_get_soon_again(inbox):
    """A reader may ask anew once its future was cancelled."""
    inbox.get_soon().cancel()
    future = inbox.get_soon()
    inbox.put_nowait("a")
    assert future.result() == "a"


async def test_get_after_get_soon(inbox):
    """A future that was cancelled doesn't keep an item from get."""
    inbox.get_soon().cancel()
    getting = await blocked(inbox.get())
    inbox.put_nowait("a")
    assert await soon(getting) == "a"


# release(), clear(), abandon()


async def test_held(held):
    """What is held can't be got, nor what comes after it, before release."""
    getting = await blocked(held.get())
    held.put_nowait("second")
    assert await blocked(getting)
    held.release()
    assert await soon(getting) == "first"
    assert await soon(held.get()) == "second"


async def test_held_from_get_soon(held):
    """What is held doesn't go to a future before release."""
    future = held.get_soon()
    held.put_nowait("second")
    assert not future.done()
    held.release()
    assert future.result() == "first"
    assert held.get_soon().result() == "second"


async def test_release_empty():
    """An inbox that was released empty gives what is put later."""
    inbox = Inbox(LIMIT, held=True)
    future = inbox.get_soon()
    inbox.release()
    assert not future.done()
    inbox.put_nowait("a")
    assert future.result() == "a"


async def test_release_once_is_enough(held):
    """Nothing is held again after release."""
    held.release()
    held.release()
    held.put_nowait("second")
    assert await drain(held, last="last") == ["first", "second"]


async def test_held_and_closed(held):
    """The last item is held too."""
    held.close("last")
    future = held.get_soon()
    assert not future.done()
    held.release()
    assert future.result() == "first"
    assert held.get_soon().result() == "last"


async def test_clear(inbox):
    """clear() drops all that waits, and the inbox is as new."""
    inbox.put_nowait("a", 4)
    inbox.put_nowait("b", 6)
    inbox.clear()
    inbox.put_nowait("c", 6)
    inbox.put_nowait("d", 4)
    assert await drain(inbox, last="last") == ["c", "d"]


async def test_clear_makes_room(full):
    """Those who wait for room have it after clear."""
    putting = await blocked(full.put("second", LIMIT))
    full.clear()
    await soon(putting)
    assert await drain(full, last="last") == ["second"]


async def test_clear_keeps_closed(inbox):
    """A closed inbox stays closed when it is cleared."""
    inbox.close("last")
    inbox.clear()
    with pytest.raises(InboxClosed):
        inbox.put_nowait("more")


async def test_abandon(inbox):
    """Nothing waits in an abandoned inbox, and nothing can be put in it."""
    inbox.put_nowait("a", LIMIT)
    inbox.abandon()
    assert not inbox.get_soon().done()
    with pytest.raises(InboxClosed):
        inbox.put_nowait("b")


async def test_abandoned_while_put_waits(full):
    """Those who wait for room are told that the reader is gone."""
    waiting = [await blocked(full.put(number)) for number in range(2)]
    full.abandon()
    for putting in waiting:
        with pytest.raises(InboxClosed):
            await soon(putting)


def test_abandon_closed(inbox):
    """An inbox may be abandoned after it was closed, and more than once."""
    inbox.close("last")
    inbox.abandon()
    inbox.abandon()
    with pytest.raises(InboxClosed):
        inbox.put_nowait("more")


# All of it


async def put_all(inbox, sizes):
    for number, size in enumerate(sizes):
        await inbox.put(number, size)
    inbox.close(None)


async def get_all(inbox, ways):
    """
    Return all items up to the last, got in any way a reader may choose.
    """
    items = []
    while True:
        way = ways.pop() if ways else "get"
        if way == "give up":
            getting = asyncio.ensure_future(inbox.get())
            await asyncio.sleep(0)  # let it start
            getting.cancel()
            await asyncio.wait([getting])
            if getting.cancelled():
                continue
            item = getting.result()
        else:
            item = await (inbox.get() if way == "get" else inbox.get_soon())
        if item is None:
            return items
        items.append(item)


@given(
    st.lists(st.integers(0, LIMIT + 2)),
    st.lists(st.sampled_from(["get", "get_soon", "give up"])),
)
async def test_every_item_once(sizes, ways):
    """However an item is put and got, it comes out once, and in order."""
    inbox = Inbox(LIMIT)
    putting = asyncio.ensure_future(put_all(inbox, sizes))
    assert await soon(get_all(inbox, ways)) == list(range(len(sizes)))
    await soon(putting)
