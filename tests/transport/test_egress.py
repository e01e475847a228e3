"""Where requests may go, as far as the files say it: every way to write an address, every key, every message."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from activations.config import Egress
from activations.config.egress import check_address
from activations.errors import ConfigError, SecretError
from activations.runner import load_project
from tests.engine.world import World

REFUSED = {
    "unspecified": ["0.0.0.0", "::"],
    "loopback": ["127.0.0.1", "127.255.255.254", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1"],
    "link-local": ["169.254.1.1", "fe80::1"],
    "metadata": ["169.254.169.254", "fd00:ec2::254", "100.100.100.200", "168.63.129.16", "::ffff:a9fe:a9fe"],
    "multicast": ["224.0.0.1", "239.255.255.255", "ff02::1"],
    "private": [
        *("0.1.2.3", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "192.0.2.1"),
        *("198.18.0.1", "198.51.100.1", "203.0.113.1", "240.0.0.1", "255.255.255.255", "192.0.0.1"),
        *(
            "fc00::1",
            "fd12::1",
            "2001:db8::1",
            "2001::1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "64:ff9b:1::1",
        ),
    ],
    "reserved": ["fec0::1", "2002:0a00:0001::1", "::10.0.0.1", "4000::1", "::ffff:0:10.0.0.1"],
}
PUBLIC = [
    "93.184.215.14",
    "1.1.1.1",
    "172.32.0.1",
    "100.128.0.1",
    "2606:4700::1111",
    "::ffff:1.1.1.1",
    "64:ff9b::101:101",
]


@pytest.mark.parametrize(("word", "text"), [(word, text) for word in REFUSED for text in REFUSED[word]])
def test_no_address_inside_is_called(word: str, text: str) -> None:
    said = Egress().refusal(ip_address(text))
    # Which of the two words a reserved block gets has changed between releases of Python.
    assert said == word or {said, word} == {"private", "reserved"}


@pytest.mark.parametrize("text", PUBLIC)
def test_public_addresses_are_called(text: str) -> None:
    assert Egress().refusal(ip_address(text)) is None


# The registries of special-purpose addresses, RFC 6890 and its successors, as blocks that must never be called.
SPECIAL = [
    ip_network(text)
    for text in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
        *(
            "192.0.2.0/24",
            "192.168.0.0/16",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/3",
        ),
    )
]


@given(st.integers(0, 2**32 - 1))
def test_a_special_block_is_refused_in_every_way_to_write_it(number: int) -> None:
    address = IPv4Address(number)
    ways = [address, IPv6Address(f"::ffff:{address}"), IPv6Address((0x64FF9B << 96) | number)]
    said = {Egress().refusal(way) for way in ways}
    assert len(said) == 1
    if any(address in block for block in SPECIAL):
        assert said != {None}


@given(st.sampled_from(SPECIAL).flatmap(lambda n: st.integers(int(n[0]), int(n[-1]))))
def test_nothing_of_a_special_block_is_called(number: int) -> None:
    assert Egress().refusal(IPv4Address(number))


def test_a_network_of_ones_own_is_called_once_it_is_listed_but_metadata_never() -> None:
    egress = Egress(allow_private=(ip_network("10.20.0.0/16"), ip_network("169.254.0.0/16")))
    assert egress.refusal(ip_address("10.20.1.1")) is None
    assert egress.refusal(ip_address("::ffff:10.20.1.1")) is None
    assert egress.refusal(ip_address("10.21.1.1")) == "private"
    assert egress.refusal(ip_address("169.254.169.254")) == "metadata"


@pytest.mark.parametrize(
    ("host", "permitted"),
    [
        ("hooks.example.com", True),
        ("HOOKS.example.com.", True),
        ("a.b.example.org", True),
        ("example.org", False),
        ("evilexample.org", False),
        ("example.com", False),
        ("hooks.example.com.evil.net", False),
        ("", False),
    ],
)
def test_the_list_of_hosts_means_what_it_says(host: str, permitted: bool) -> None:
    assert Egress(hosts=("hooks.example.com", "*.example.org")).permits(host) is permitted


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://example.com/", "not an https address"),
        ("ftp://example.com/", "not an https address"),
        ("https:///path", "not an https address"),
        ("https://example.com:99999/", "not an https address"),
        ("https://[::1/", "not an https address"),
        ("https://user:canary@example.com/", "a user name, a password"),
        ("https://example.com/#x", "a fragment"),
        ("https://example.com\\@evil.com/", "characters"),
        ("https://bücher.example/", "characters"),
        ("https://exam ple.com/", "characters"),
        ("https://127.0.0.1/", "a loopback address"),
        ("https://[fe80::1]/", "a link-local address"),
        ("https://[::ffff:10.0.0.1]/", "a private address.*allow_private"),
        ("https://10.0.0.1:8443/", "a private address.*allow_private"),
        ("https://2130706433/", "in disguise"),
        ("https://0x7f.1/", "in disguise"),
        ("https://0177.0.0.1/", "in disguise"),
        ("https://127.1/", "in disguise"),
        ("https://1.1.1.1./", "in disguise"),
        ("https://[fe80::1%25eth0]/", "link-local|in disguise|not an https"),
    ],
)
def test_a_wrong_address_is_refused_when_the_file_is_read(url: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        check_address(
            url, Egress(), own_host=None, file=Path("destinations.yml"), key="destinations.hook.url"
        )
    assert "destinations.yml: destinations.hook.url: " in str(caught.value)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["https://example.com", "https://a.example.com:8443/x?y=z", "https://1.1.1.1/"]
)
def test_a_right_address_is_not(url: str) -> None:
    check_address(url, Egress(), own_host=None, file=Path("f"), key="k")


# -- through the files -------------------------------------------------------------------------------------------


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.delenv("ACTIVATIONS_VAR", raising=False)
    return World(tmp_path)


def write(world: World, *, egress: dict[str, Any] | None = None, **account: Any) -> None:
    home = world.root / "activations"
    settings = yaml.safe_load((home / "project.yml").read_text())
    (home / "project.yml").write_text(yaml.safe_dump(settings | ({"egress": egress} if egress else {})))
    document = yaml.safe_load((home / "destinations.yml").read_text())
    document["destinations"]["hook"] |= {"environment": "live", **account}
    (home / "destinations.yml").write_text(yaml.safe_dump(document))


@pytest.mark.parametrize(
    ("account", "egress", "words"),
    [
        ({"url": "https://10.0.0.1/"}, {}, r"destinations\.hook\.url: `10.0.0.1` is a private address"),
        ({"base_url": "http://x.example.com"}, {}, r"destinations\.hook\.base_url: is not an https address"),
        ({}, {"hosts": ["*.example.org"]}, r"`hooks.example.com` is not among egress.hosts"),
        ({}, {"hosts": []}, r"project\.yml: egress\.hosts"),
        ({}, {"hosts": ["https://example.com"]}, r"project\.yml: egress\.hosts\.0"),
        ({}, {"allow_private": ["10.0.0.1/8"]}, r"project\.yml: egress\.allow_private\.0"),
        ({}, {"proxi": "x"}, r"egress\.proxi: unknown key. Did you mean `proxy`"),
        ({}, {"proxy": "http://user:canary@proxy:3128"}, r"egress: `proxy` must be"),
        ({}, {"verify": False}, r"egress\.verify: unknown key"),
    ],
)
def test_a_project_that_may_not_send_there_does_not_load(
    world: World, account: dict[str, Any], egress: dict[str, Any], words: str
) -> None:
    write(world, egress=egress, **account)
    with pytest.raises(ConfigError, match=words) as caught:
        load_project(world.root)
    assert "canary" not in str(caught.value)


def test_a_project_that_may_send_there_loads(world: World) -> None:
    write(world, egress={"hosts": ["hooks.example.com"], "allow_private": ["10.0.0.0/8"]})
    egress = load_project(world.root).settings.egress
    assert (egress.hosts, egress.allow_private) == (("hooks.example.com",), (ip_network("10.0.0.0/8"),))


def test_the_proxys_password_is_read_when_it_is_needed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    write(world, egress={"proxy": "env:OUR_PROXY"})
    project = load_project(world.root)
    monkeypatch.delenv("OUR_PROXY", raising=False)
    with pytest.raises(SecretError, match=r"egress\.proxy: the environment variable OUR_PROXY is not set"):
        project.settings.egress.proxy_address(project.root)
    monkeypatch.setenv("OUR_PROXY", "canary")
    with pytest.raises(ConfigError, match="points at no address") as caught:
        project.settings.egress.proxy_address(project.root)
    assert "canary" not in str(caught.value)
    monkeypatch.setenv("OUR_PROXY", "https://us:canary@proxy.example.com:3128")
    assert project.settings.egress.proxy_address(project.root) == "https://us:canary@proxy.example.com:3128"


def test_only_a_kind_that_takes_compressed_bodies_is_sent_them(world: World) -> None:
    write(world, compress="gzip")
    assert load_project(world.root).accounts["hook"].compress == "gzip"
    write(world, kind="klaviyo", api_key="env:KEY", url=None, signing_secret=None)
    document = yaml.safe_load((world.root / "activations/destinations.yml").read_text())
    for name in ("url", "signing_secret"):
        del document["destinations"]["hook"][name]
    (world.root / "activations/destinations.yml").write_text(yaml.safe_dump(document))
    with pytest.raises(ConfigError, match=r"hook\.compress: klaviyo takes no compressed requests"):
        load_project(world.root)
