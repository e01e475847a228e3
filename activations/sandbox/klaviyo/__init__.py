"""Klaviyo's stand-in: profiles, lists, import jobs that take their time, subscriptions (revision 2026-07-15)."""

from activations.sandbox.klaviyo.stand_in import KlaviyoStandIn

__all__ = ["KlaviyoStandIn"]
