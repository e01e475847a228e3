"""What the demonstration consists of: its tables, and how much of them each scale shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from types import MappingProxyType


class Scale(StrEnum):
    """How much of the data set is loaded: a slice for tests and a first look, or all of it."""

    SLICE = "slice"
    FULL = "full"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """The part of the world a scale shows: the first households in md5 order, between two moments."""

    households: int
    starts_at: datetime
    as_of: datetime


def _utc(year: int, month: int, day: int, hour: int = 0) -> datetime:
    return datetime(year, month, day, hour, tzinfo=UTC)


SCOPES: Mapping[Scale, Scope] = MappingProxyType(
    {
        Scale.SLICE: Scope(households=200, starts_at=_utc(2017, 6, 1), as_of=_utc(2017, 9, 1, 16)),
        # All 2,469 households; the first campaign starts in November 2016, the last order is hours before noon
        # in New York on the first of January 2018.
        Scale.FULL: Scope(households=2_469, starts_at=_utc(2016, 11, 1), as_of=_utc(2018, 1, 1, 17)),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RawTable:
    """One table of the schema `raw`.

    `depends_on` names the raw tables it tells the same story as; `world` the scripts of `sql/world/` its SQL reads.
    """

    name: str
    description: str
    is_generated: bool
    depends_on: tuple[str, ...] = ()
    world: tuple[str, ...] = ()


def _retail(name: str, description: str) -> RawTable:
    return RawTable(name=f"retail_{name}", description=description, is_generated=False)


def _generated(name: str, description: str, *, world: str = "", depends_on: str = "") -> RawTable:
    return RawTable(
        name=name,
        description=f"{description} Generated.",
        is_generated=True,
        depends_on=tuple(depends_on.split()),
        world=tuple(world.split()),
    )


_TABLES = (
    _retail(
        "transactions", "One row per product in a basket: who bought what, where, when and for how much."
    ),
    _retail("products", "One row per product."),
    _retail("campaigns", "One row per campaign and household it was aimed at."),
    _retail("campaign_descriptions", "One row per campaign: its type, start and end."),
    _retail("coupons", "One row per coupon, product and campaign; the publisher repeats some."),
    _retail("coupon_redemptions", "One row per coupon that a household redeemed."),
    _retail("demographics", "One row per household that answered questions about itself; a third did."),
    _generated(
        "crm_contacts",
        "One row per contact in a source system; the same person may be in two.",
        world="people records",
        depends_on="retail_transactions",
    ),
    _generated(
        "phone_history",
        "One row per contact and phone number it held, with the time it held it.",
        world="people records",
        depends_on="crm_contacts",
    ),
    _generated(
        "web_events",
        "One row per thing a browser did in the web shop.",
        world="people devices visits",
        depends_on="crm_contacts retail_transactions",
    ),
    _generated(
        "message_events",
        "One row per thing that happened to an e-mail or text message of a campaign.",
        world="people sends",
        depends_on="crm_contacts retail_campaigns retail_campaign_descriptions",
    ),
    _generated(
        "consent_events",
        "One row per statement about one identifier; append-only.",
        world="people records devices sends",
        depends_on="crm_contacts web_events message_events",
    ),
    _generated(
        "suppression_list",
        "One row per identifier that must not be contacted, whatever anybody consented to.",
        world="people",
        depends_on="crm_contacts",
    ),
    _generated("clock", "One row: the moment the data describe as now, UTC."),
    _generated(
        "overlay_true_person",
        "One row per contact: who it truly is. For scoring identity resolution, never for building it.",
        world="people records",
        depends_on="crm_contacts",
    ),
)

RAW_TABLES: Mapping[str, RawTable] = MappingProxyType({table.name: table for table in _TABLES})
