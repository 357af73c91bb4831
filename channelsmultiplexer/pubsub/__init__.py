"""
The Redis hop: one Pub/Sub connection for all that a process listens to.
"""

from ..exceptions import (
    InactiveSubscription,
    NameRefused,
    PromiseLost,
    RedisUnavailable,
    SubscriptionIsClosed,
)
from .callbacks import (
    ChannelSubscription,
    OnActivation,
    OnDisconnect,
    OnGap,
    OnMessage,
    PatternSubscription,
)
from .consumer import RedisListener, shared
from .listening import Activation, Gap, Message
from .multiplexer import Multiplexer
from .promises import Promise, PromiseSubscription
from .subscriptions import Subscription

__all__ = [
    "Activation",
    "ChannelSubscription",
    "Gap",
    "InactiveSubscription",
    "Message",
    "Multiplexer",
    "NameRefused",
    "OnActivation",
    "OnDisconnect",
    "OnGap",
    "OnMessage",
    "PatternSubscription",
    "Promise",
    "PromiseLost",
    "PromiseSubscription",
    "RedisListener",
    "RedisUnavailable",
    "Subscription",
    "SubscriptionIsClosed",
    "shared",
]
