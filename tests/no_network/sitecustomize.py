"""Loaded by every Python with this folder on its path: no connection leaves this machine."""

from __future__ import annotations

import socket
from typing import Any

HERE = ("127.0.0.1", "::1", "localhost", "", None)


def _checked(reach: Any, *, at: int) -> Any:
    """``reach`` with its argument number ``at``, a host or an address, looked at first."""

    def guarded(*arguments: Any, **options: Any) -> Any:
        target = arguments[at]
        host = target[0] if isinstance(target, tuple) else target
        if isinstance(target, tuple | str | None) and host not in HERE and "/" not in str(host):
            raise RuntimeError(f"something tried to reach {target}")
        return reach(*arguments, **options)

    return guarded


for name in ("connect", "connect_ex"):
    setattr(socket.socket, name, _checked(getattr(socket.socket, name), at=1))
socket.getaddrinfo = _checked(socket.getaddrinfo, at=0)
