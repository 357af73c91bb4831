"""
What two server processes on one Redis serve: streams that hear a group and Redis.
"""

from __future__ import annotations

import os

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "demo.settings")
django.setup()

from django.conf import settings  # noqa: E402

# redis-py 8 would have it that no more than 100 commands run at a time, and that a
# BZPOPMIN is answered in 5 seconds: channels_redis 4.3 fails of either.
settings.CHANNEL_LAYERS = {
    "default": {
        "BACKEND": f"channels_redis.{os.environ['REDIS_LAYER']}",
        "CONFIG": {
            "hosts": [
                {
                    "address": os.environ["REDIS_URL"],
                    "max_connections": 10_000,
                    "socket_timeout": None,
                }
            ]
        },
    }
}

from channels.generic.websocket import AsyncJsonWebsocketConsumer  # noqa: E402

from channelsmultiplexer import AsyncJsonWebsocketDemultiplexer  # noqa: E402
from channelsmultiplexer.pubsub import RedisListener  # noqa: E402

__all__ = ["application"]

STREAMS = [f"s{number}" for number in range(5)]


class Listener(RedisListener, AsyncJsonWebsocketConsumer):
    """
    Tells its client what comes from the group and from Redis.
    """

    groups = ["everybody"]
    redis_url = os.environ["REDIS_URL"]

    async def connect(self):
        """Say so when all that is published from now on will come."""
        await self.accept()
        await self.listen("prices.*")
        await self.send_json("ready")

    async def receive_json(self, content):
        """Tell the group."""
        message = {"type": "group.message", "text": content}
        await self.channel_layer.group_send("everybody", message)

    async def group_message(self, event):
        """Tell the client what the group was told."""
        await self.send_json(["group", event["text"]])

    async def redis_message(self, event):
        """Tell the client what was published."""
        await self.send_json(["redis", event["data"].decode()])


application = AsyncJsonWebsocketDemultiplexer.as_asgi(
    **dict.fromkeys(STREAMS, Listener.as_asgi())
)
