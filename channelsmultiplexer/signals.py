"""
Django signals of what becomes of streams.

::

    # chat/receivers.py, which ChatConfig.ready() imports
    import logging

    from django.dispatch import receiver

    from channelsmultiplexer.signals import stream_opened

    logger = logging.getLogger(__name__)


    @receiver(stream_opened)
    async def note(sender, *, scope, stream, path, **kwargs):
        logger.info("%s opened %s", scope["user"], path)

A stream that was refused sends neither; one that was opened sends both, whatever
ends it. :data:`stream_closed` comes once its application has ended.

A receiver may be asynchronous (from Django 5.0 on) and then must not block. A
synchronous one runs in the thread of Django's synchronous code, so it may use the
ORM. While it blocks there, so does all that needs this thread: synchronous code,
``database_sync_to_async()``, and each message to a consumer (from Channels 4.2 on,
which sees to the database's connections first). The stream's application waits for
the receivers in its ``accept()``, and the socket's end waits for them. So they should
take milliseconds, and hand anything longer to a task queue.

A receiver that raises is logged by ``django.dispatch``, and harms nothing.
"""

from __future__ import annotations

from typing import Any

from asgiref.sync import sync_to_async
from django.dispatch import Signal

__all__ = ["announce", "stream_closed", "stream_opened"]

#: An application has accepted a stream.
#:
#: Args:
#:     sender: The demultiplexer's class.
#:
#:     scope: The stream's scope, with its ``user`` if there is one.
#:
#:     stream: Its name on the wire; a number in the v1 dialect.
#:
#:     path: The application's name, and in the v1 dialect what follows it in the
#:         path that the client opened, but for the query.
stream_opened: Signal = Signal()

#: A stream that was opened has ended. It sends what :data:`stream_opened` does, and:
#:
#: Args:
#:     code: The close code.
#:
#:     reason: The reason, or ``""``.
#:
#:     by: Who ended it: ``"client"``, also by leaving; ``"application"``, also by
#:         raising; ``"server"``: the demultiplexer.
stream_closed: Signal = Signal()


async def announce(signal: Signal, sender: type, **named: Any) -> None:
    """
    Send a signal to its receivers, and wait for them.

    Canceling it leaves some untold.
    """
    # Before Django 5.0, all receivers are synchronous.
    send = getattr(signal, "asend_robust", None) or sync_to_async(signal.send_robust)
    await send(sender, **named)
