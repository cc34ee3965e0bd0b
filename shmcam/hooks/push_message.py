"""Sends an event as a message of one of the push services that apprise knows (the extra `hooks`)."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from shmcam.hooks.attempt import Attachment, Attempt

logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)  # its lines quote addresses, with their keys


def send_push(
    addresses: Sequence[str], *, title: str, text: str, file: Attachment | None, reached: set[str] | None = None
) -> Attempt:
    """Sends one message to each address; apprise has time limits of its own (`cto`, `rto` in the address).

    `reached`: the addresses that need no further try for this event; those that take it now are added.
    """
    import apprise
    from apprise.attachment.memory import AttachMemory

    reached = set() if reached is None else reached
    attach: AttachMemory | str | None = None
    if file is not None and isinstance(file.content, bytes):
        attach = AttachMemory(content=file.content, name=file.name, mimetype=file.media_type)  # type: ignore[no-untyped-call]
    elif file is not None:
        attach = str(file.content)
    problems = []
    for number, address in enumerate(addresses, 1):
        if address in reached:
            continue
        service = apprise.Apprise()
        if not service.add(address):
            problems.append(f"address {number} of push is none that apprise knows")
        elif service.notify(body=text, title=title, attach=attach):
            reached.add(address)
        else:
            problems.append(f"address {number} of push: the service refused it or does not answer")
    return Attempt("failed", "; ".join(problems)) if problems else Attempt("done", f"{len(addresses)} sent")
