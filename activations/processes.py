"""Processes, by the name under which they hold a sync: `host:number`."""

from __future__ import annotations

import os
import socket


def this_process() -> str:
    return f"{socket.gethostname()}:{os.getpid()}"


def is_gone(name: str) -> bool:
    """Whether the process is known to have ended: it was on this host and is no more. Of another host nobody knows, and a
    number may have been given to somebody else since."""
    host, _, number = name.rpartition(":")
    if host != socket.gethostname():
        return False
    try:
        os.kill(int(number), 0)  # asks, and does nothing
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False
