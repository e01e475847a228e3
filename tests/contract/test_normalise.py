"""Normal forms and digests: published by the vendors where they publish any, else computed with hashlib."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activations.destinations.normalise import (
    META,
    e164,
    json_exact,
    json_number,
    meta_email,
    meta_name,
    meta_phone,
    meta_place,
    meta_zip,
    sha256,
)

# The first five pairs are printed in Meta's documentation, the sixth in X's.
PUBLISHED = {
    "john_smith@gmail.com": "62a14e44f765419d10fea99367361a727c12365e2520f32218d505ed9aa0f62f",
    "16505551212": "e323ec626319ca94ee8bff2e4c87cf613be6ea19919ed1364124e16807ab3176",
    "mary": "6915771be1c5aa0c886870b6951b03d7eafc121fea0e80a5ea83beb7c449f4ec",
    "정": "8fa8cd9c440be61d0151429310034083132b35975c4bea67fdd74158eb51db14",
    "valéry": "08e1996b5dd49e62a4b4c010d44e4345592a863bb9f8e3976219bac29417149c",
    "adsapi": "49e0be2aeccfb51a8dee4c945c8a70a9ac500cf6f5cb08112575f74db9b1470d",
}
COMPUTED = {
    ("email", "cloudy.sanfrancisco+shopping@gmail.com"): (
        "8dd4a9bf850242873c14976125edabc35096192b784626a5641a7d2de56e3c1e"
    ),
    ("email", "user.name+NYC@Example.com"): (
        "f109a2a632fbcea5fc82049f50beed3d8621bf9034399f437fb622222acccdac"
    ),
    ("phone", "+1 (800)555-0100"): "92cfdc5fbcd4a20fbe5d3857af6c1aba31762105bba7f21a17155e920653046c",
}
EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.mark.parametrize(("normal_form", "digest"), PUBLISHED.items())
def test_published_digests(normal_form: str, digest: str) -> None:
    assert sha256(normal_form) == digest


@pytest.mark.parametrize(("column", "value"), COMPUTED)
def test_metas_normal_form_of_awkward_values(column: str, value: str) -> None:
    assert sha256(META[column](value)) == COMPUTED[column, value]


def test_meta_keeps_letters_that_its_own_sdk_drops() -> None:
    assert sha256(meta_name(" Valéry ")) == PUBLISHED["valéry"]
    assert sha256(meta_name("정")) == PUBLISHED["정"]
    assert meta_name("O'Neill-Smith Jr.") == "oneillsmith jr"


def test_an_empty_value_and_a_digest_are_never_hashed() -> None:
    assert sha256("") == ""
    assert sha256(PUBLISHED["mary"]) == PUBLISHED["mary"]


@pytest.mark.parametrize("value", ["", "   ", "\u00a0"])
@pytest.mark.parametrize("column", META)
def test_nothing_becomes_nothing(column: str, value: str) -> None:
    assert sha256(META[column](value)) == ""


@pytest.mark.parametrize(
    ("value", "normal"),
    [
        ("+44 20 7946 0123", "442079460123"),
        ("0044 20 7946 0123", "442079460123"),
        ("+0000000000", ""),
        ("٠١٢", "12"),
    ],
)
def test_meta_phone(value: str, normal: str) -> None:
    assert meta_phone(value) == normal


@pytest.mark.parametrize(
    ("value", "normal"),
    [
        ("94041-1234", "94041"),
        ("940411234", "94041"),
        (" 94041 ", "94041"),
        ("M1 1AE", "m11ae"),
        ("1010", "1010"),
    ],
)
def test_meta_zip(value: str, normal: str) -> None:
    assert meta_zip(value) == normal


@pytest.mark.parametrize(
    ("value", "normal"), [("São Paulo", "sãopaulo"), ("St. Louis", "stlouis"), ("US", "us")]
)
def test_meta_place(value: str, normal: str) -> None:
    assert meta_place(value) == normal


@pytest.mark.parametrize(
    ("value", "normal"),
    [
        ("+1 212 555 0123", "+12125550123"),
        ("2125550123", ""),
        ("+0123456", ""),
        ("+1", ""),
        ("", ""),
        ("+x", ""),
    ],
)
def test_e164_invents_no_country(value: str, normal: str) -> None:
    assert e164(value) == normal


@given(st.text(max_size=60))
def test_normal_forms_are_stable_and_no_digest_of_nothing_leaves(value: str) -> None:
    for column, normalise in META.items():
        normal = normalise(value)
        assert normalise(normal) == normal, column
        assert sha256(normal) != EMPTY


def test_email_keeps_dots_and_tags() -> None:
    assert meta_email(" A.B+c@Example.com ") == "a.b+c@example.com"


def test_fields_as_json() -> None:
    assert json_exact(Decimal("12.50")) == "12.50"
    assert json_number(Decimal("12.50")) == 12.5
    assert json_exact(date(2017, 9, 1)) == "2017-09-01"
    assert json_exact(datetime(2017, 9, 1, 16)) == "2017-09-01T16:00:00+00:00"
    eastern = timezone(timedelta(hours=-4))
    assert json_exact(datetime(2017, 9, 1, 12, tzinfo=eastern)) == "2017-09-01T12:00:00-04:00"
    assert json_exact(datetime(2017, 9, 1, tzinfo=UTC)) == "2017-09-01T00:00:00+00:00"
    assert [json_exact(value) for value in (None, True, 3, "x")] == [None, True, 3, "x"]
