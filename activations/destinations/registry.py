"""Kinds of destinations by the name that destinations.yml uses. A new kind is a module and one entry here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from activations.destinations.base import Destination
from activations.destinations.klaviyo import Klaviyo
from activations.destinations.meta import MetaCustomAudience
from activations.destinations.twilio import TwilioMessaging
from activations.destinations.webhook import SignedWebhook

KINDS: Mapping[str, type[Destination[Any, Any]]] = {
    kind.kind: kind for kind in (Klaviyo, MetaCustomAudience, SignedWebhook, TwilioMessaging)
}
