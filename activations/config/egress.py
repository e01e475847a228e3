"""Where requests may go: which hosts, and which addresses behind their names.

Addresses in destinations.yml are written by people, and names answer with whatever their owner likes: without these
rules a webhook is a way to reach the services inside one's own network, with a signed body.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, StringConstraints, model_validator

from activations.config import secrets
from activations.config.base import Says, Strict
from activations.errors import ConfigError

IPAddress = IPv4Address | IPv6Address
HostPattern = Annotated[
    str,
    StringConstraints(pattern=r"^(\*\.)?[a-z0-9-]+(\.[a-z0-9-]+)*$"),
    Says("must be a host, `hooks.example.com`, or `*.example.com`, without https:// and in lower case"),
]


def _no_number(value: object) -> object:
    """10 would be 0.0.0.10."""
    if isinstance(value, int):
        raise ValueError
    return value


Network = Annotated[
    IPv4Network | IPv6Network,
    BeforeValidator(_no_number),
    Says("must be a network, such as `10.20.0.0/16` or `fd00:1::/32`"),
]

_NAT64 = IPv6Network("64:ff9b::/96")
_GLOBAL_V6, _6TO4 = IPv6Network("2000::/3"), IPv6Network("2002::/16")
# AWS, Azure, Google and others; AWS over IPv6; Alibaba; Azure's wire server, which has a public address.
_METADATA = {
    ip_address(text) for text in ("169.254.169.254", "fd00:ec2::254", "100.100.100.200", "168.63.129.16")
}
# What `inet_aton` takes for an address although it does not look like one: 2130706433, 0x7f.1, 0177.0.0.1
_NUMBER = re.compile(r"0x[0-9a-f]*|[0-9]+", re.IGNORECASE)
_PROXY = re.compile(r"(env|file):.+|https?://[A-Za-z0-9.-]+:[0-9]{1,5}")


class Egress(Strict):
    """`egress:` in project.yml."""

    hosts: tuple[HostPattern, ...] | None = Field(None, min_length=1)
    """When given, live requests go to these hosts only: `hooks.example.com`, or `*.example.com` for everything below
    it. The vendors' own addresses need not be listed."""
    allow_private: tuple[Network, ...] = ()
    """Networks of one's own in which receivers live, e.g. `10.20.0.0/16`."""
    proxy: str | None = None
    """`https://host:port`, or a reference to an address that holds a password: `env:NAME`, `file:path`. It resolves
    names and reaches addresses in our place, so the rules about addresses are its own; `hosts` still holds."""
    ca_bundle: str | None = None
    """A file of certificates that are trusted beside the public ones; relative to the project."""

    @model_validator(mode="after")
    def _proxy_without_password(self) -> Self:
        """Checked here, since the message about a field would repeat its value."""
        if self.proxy is not None and not _PROXY.fullmatch(self.proxy):
            raise ValueError(
                "`proxy` must be `https://host:port`, or `env:NAME` when there is a password in the address"
            )
        return self

    def proxy_address(self, root: Path) -> str | None:
        """The address that `proxy` gives or points at; asked for when a run starts, never when files are read."""
        if not secrets.is_reference(self.proxy):
            return self.proxy
        file, key = root / "activations/project.yml", "egress.proxy"
        address = secrets.resolve(str(self.proxy), file=file, key=key, root=root)
        if not address.startswith(("https://", "http://")):
            raise ConfigError("points at no address", file=file, key=key, fix="It is `https://host:port`")
        return address

    def permits(self, host: str) -> bool:
        """Whether the list of hosts, if there is one, has this host."""
        name = host.lower().rstrip(".")
        return self.hosts is None or any(_matches(name, pattern) for pattern in self.hosts)

    def refusal(self, address: IPAddress) -> str | None:
        """Why nothing may be sent to this address, in a word; None when it may."""
        address = _embedded(address)
        if address in _METADATA:
            return "metadata"
        if any(address in network for network in self.allow_private):
            return None
        return _why_not_public(address)


def check_address(url: str, egress: Egress, *, own_host: str | None, file: Path, key: str) -> None:
    """Refuse what can be seen to be wrong without asking for a name: ConfigError. The rest is refused on connecting."""
    try:
        host, _ = host_of(url), urlsplit(url).port
    except ValueError:
        host = None
    if found := _problem_of_form(url, host) or _problem_of_host(str(host), egress, own_host):
        raise ConfigError(found[0], file=file, key=key, fix=found[1])


def host_of(url: str) -> str | None:
    return urlsplit(url).hostname


def _problem_of_form(url: str, host: str | None) -> tuple[str, str] | None:
    if not host or not url.startswith("https://"):
        return "is not an https address", "Write `https://host/path`"
    # A backslash, a blank or another script is where two parsers may see two different hosts.
    if not re.fullmatch(r"[!-~]+", url) or "\\" in url:
        return "holds characters that do not belong there", "Write other scripts as `xn--…` or `%…`"
    if "@" in urlsplit(url).netloc or "#" in url:
        return "holds a user name, a password or a fragment", "Remove it; credentials have keys of their own"
    return None


def _problem_of_host(host: str, egress: Egress, own_host: str | None) -> tuple[str, str] | None:
    if host != own_host and not egress.permits(host):
        return f"`{host}` is not among egress.hosts", "Add it in project.yml"
    if not (":" in host or _NUMBER.fullmatch(host.rstrip(".").rpartition(".")[2])):
        return None
    try:
        refusal = egress.refusal(ip_address(host))
    except ValueError:
        return f"`{host}` is an address in disguise", "Write four decimal numbers, or a name"
    return (f"`{host}` is a {refusal} address", private_fix(refusal)) if refusal else None


def private_fix(refusal: str) -> str:
    """What to do about an address that was refused."""
    if refusal == "private":
        return "If the receiver lives in your own network, list that network under egress.allow_private in project.yml"
    return "Use the receiver's public name"


def _matches(name: str, pattern: str) -> bool:
    return name.endswith(pattern[1:]) if pattern.startswith("*.") else name == pattern


def _embedded(address: IPAddress) -> IPAddress:
    """The IPv4 address that an IPv6 one stands for: packets arrive there."""
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address


def _why_not_public(address: IPAddress) -> str | None:
    for word in ("unspecified", "loopback", "link_local", "multicast"):
        if getattr(address, f"is_{word}"):
            return word.replace("_", "-")
    # Everything else in IPv6 is reserved, local, or an old way of tunnelling IPv4.
    if isinstance(address, IPv6Address) and (address not in _GLOBAL_V6 or address in _6TO4):
        return "private" if address.is_private else "reserved"
    return None if address.is_global else "private"
