"""shmcam."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shmcam.client import Client, ServiceError

__all__ = ["Client", "ServiceError"]


def __getattr__(name: str) -> Any:
    """Imports the client when it is asked for: processes need none of it."""
    if name in __all__:
        from shmcam import client

        return getattr(client, name)
    raise AttributeError(f"module 'shmcam' has no attribute {name!r}")
