"""
Where a multiplex's messages are, in numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .router import Router

__all__ = ["MultiplexStats", "SubscriptionStats"]


@dataclass(frozen=True)
class MultiplexStats:
    """
    Numbers of a multiplex, and where each message is.

    ``received + copied == delivered + queued + dropped + filtered + unrouted + control
    + undecodable``

    Attributes:
        total_subscriptions: How many there have been.

        active_subscriptions: How many there are.

        total_messages_routed: Messages put in some queue, once for each queue.

        unroutable_messages: Those that nobody wanted; ``unrouted``.

        connection_stats: The state, how many links there have been, how often one
            was lost, and when the last message came.

        received: Frames that came in.

        copied: How many more queues than one they went to.

        delivered: Messages that were read.

        queued: Messages that wait.

        dropped: Messages lost because they came faster than they were read, or
            because their reader had left.

        filtered: Duplicates of a renewal, and what a post-processor dropped.

        control: What was for us: confirmations, and our server's control frames.

        undecodable: Frames that couldn't be read; once for each reader that skipped
            one.
    """

    total_subscriptions: int
    active_subscriptions: int
    total_messages_routed: int
    connection_stats: dict[str, Any]
    received: int
    copied: int
    delivered: int
    queued: int
    dropped: int
    filtered: int
    unrouted: int
    control: int
    undecodable: int

    @classmethod
    def of(cls, router: Router) -> MultiplexStats:
        """
        Return the numbers of a router, and of what is underneath.
        """
        connection = router.connection
        boxes = [subscription.mailbox for subscription in router.subscriptions()]
        received = router.gone_received + sum(box.received for box in boxes)
        dropped = router.gone_dropped + sum(box.dropped for box in boxes)
        waiting = sum(len(box.items) for box in boxes)
        return cls(
            total_subscriptions=router.total,
            active_subscriptions=sum(not box.closed for box in boxes),
            total_messages_routed=received,
            connection_stats={
                "state": connection.state.value,
                "connections": connection.connections,
                "last_recv_time": connection.last_recv_time,
            },
            received=router.received,
            copied=router.copied,
            delivered=received - dropped - waiting,
            queued=sum(box.waiting for box in boxes) + router.processed,
            dropped=dropped,
            filtered=router.filtered,
            unrouted=router.unrouted,
            control=router.control,
            undecodable=router.undecodable,
        )

    @property
    def unroutable_messages(self) -> int:
        """The seed's name for :attr:`unrouted`."""
        return self.unrouted


@dataclass(frozen=True)
class SubscriptionStats:
    """
    Numbers of one subscription: ``messages_received`` is the sum of those
    ``delivered``, of ``queue_size``, and of those ``dropped``.
    """

    channel: Any
    messages_received: int
    delivered: int
    queue_size: int
    dropped: int
    is_active: bool
