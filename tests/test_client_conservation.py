"""
Each frame is somewhere: delivered, or counted.
"""

from __future__ import annotations

import json
import random

import pytest

from feed import (
    GARBAGE,
    PATIENCE,
    Feed,
    assert_conserved,
    next_event,
    within,
)

pytestmark = pytest.mark.usefixtures("nothing_left")


@pytest.mark.parametrize("seed", range(3))
async def test_conservation(seed):
    """Whatever happens, each frame is somewhere, in all and per subscription."""
    chance = random.Random(seed)
    policies = ["drop_oldest", "drop_newest", "latest", "error"]
    async with Feed() as feed, feed.client(queue_size=20) as mux:
        events = mux.events()
        subs = [
            await mux.subscribe(chance.choice("abc"), overflow=chance.choice(policies))
            for _ in range(8)
        ]
        subs.append(mux.stream_filter([{"data": 7}, {"stream": "b"}]))
        last = await mux.subscribe("last")
        read, sent = dict.fromkeys(subs, 0), 0
        for _ in range(400):
            match chance.randrange(12):
                case 0:
                    await feed.sockets[-1].send(chance.choice(GARBAGE))
                    sent += 1
                case 1:
                    for sub in chance.sample(subs, 4):
                        if sub.stats().queue_size:
                            read[sub] += len(await sub.recv_many())
                case 2 if chance.random() < 0.1:
                    mux.present_ws.transport.abort()
                    await within(next_event(events, "resubscribed"))
                case 3 if len(subs) > 4 and chance.random() < 0.2:
                    gone = subs.pop()
                    await gone.close()
                    assert gone.stats().queue_size == 0
                case _:
                    name = chance.choice("abcd")
                    text = json.dumps({"stream": name, "data": chance.randrange(9)})
                    await feed.sockets[-1].send(text)
        # Once this is there, all that was sent before it has been seen to.
        await feed.sockets[-1].send('{"stream":"last"}')
        await last.recv(PATIENCE)
        assert_conserved(mux.stats())
        for sub, number in read.items():
            stats = sub.stats()
            assert stats.delivered == number
            parts = stats.delivered + stats.queue_size + stats.dropped
            assert stats.messages_received == parts
