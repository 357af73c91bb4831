"""
A project's ASGI module that cannot be imported without the Redis extra.
"""

from channelsmultiplexer.pubsub import RedisListener

__all__ = ["RedisListener"]
