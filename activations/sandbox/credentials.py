"""The sandbox's credentials: fixed, public, good for nothing else."""

from __future__ import annotations

import base64

_WEBHOOK_SECRET = "whsec_" + base64.b64encode(b"sandbox-webhook-signing-secret").decode("ascii")

_CREDENTIALS: dict[str, dict[str, str]] = {
    "klaviyo": {"api_key": "pk_sandbox"},
    "twilio": {"account_sid": "AC" + "5a" * 16, "auth_token": "sandbox-token"},
    "meta_custom_audience": {"access_token": "sandbox-token"},
    "webhook": {"signing_secret": _WEBHOOK_SECRET},
}

_PREFIXES = {
    "klaviyo": "/klaviyo",
    "twilio": "/twilio",
    "meta_custom_audience": "/meta",
    "webhook": "/webhook",
}


def credentials_for(kind: str) -> dict[str, str]:
    """The credential options of an account of this kind, as its `Config` names them."""
    return dict(_CREDENTIALS[kind])


def base_url_for(kind: str, sandbox_url: str) -> str:
    """Where the stand-in of this kind answers."""
    return sandbox_url.rstrip("/") + _PREFIXES[kind]
