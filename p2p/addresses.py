"""Which addresses may be dialled. Pure."""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit

from ledger.errors import ConfigError


def is_loopback(host: str) -> bool:
    """Tell whether ``host`` is this machine by name or address."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def leaves_machine(address: str) -> bool:
    """Tell whether an address, a URL that is dialled or the host that one was dialled from, is another machine's."""
    return not is_loopback(urlsplit(address).hostname or "" if "://" in address else address)


def check_url(url: str, *, allow_plaintext: bool) -> None:
    """Raise ConfigError unless ``url`` is an address that may be dialled: ``ws://HOST:PORT`` or ``wss://HOST:PORT``.

    allow_plaintext: whether ``ws://`` may leave this machine.
    """
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("ws", "wss") and parts.hostname and parts.port and not parts.path
    except ValueError:
        good = False
    if not good:
        raise ConfigError("not a peer's address", where="peers", expected="ws://HOST:PORT or wss://", actual=url)
    if parts.scheme == "ws" and not allow_plaintext and not is_loopback(parts.hostname or ""):
        raise ConfigError(
            "peering without TLS is for loopback only",
            where="peers",
            actual=url,
            hint="Use wss://, or allow plaintext on a network that is yours alone",
        )
