"""Sends an event as a message of one of the push services that apprise knows (the extra `hooks`)."""

from __future__ import annotations

from collections.abc import Sequence

from shmcam.hooks.attempt import Attachment, Attempt


def send_push(addresses: Sequence[str], *, title: str, text: str, file: Attachment | None) -> Attempt:
    """Sends one message to each address; apprise has time limits of its own (`cto`, `rto` in the address)."""
    import apprise
    from apprise.attachment.memory import AttachMemory

    services = apprise.Apprise()
    for number, address in enumerate(addresses, 1):
        if not services.add(address):
            return Attempt("failed", f"address {number} of push is none that apprise knows")
    attach: AttachMemory | str | None = None
    if file is not None and isinstance(file.content, bytes):
        attach = AttachMemory(content=file.content, name=file.name, mimetype=file.media_type)  # type: ignore[no-untyped-call]
    elif file is not None:
        attach = str(file.content)
    if services.notify(body=text, title=title, attach=attach):
        return Attempt("done", f"{len(addresses)} sent")
    return Attempt("failed", "the push service refused it or does not answer; the log has its words")
