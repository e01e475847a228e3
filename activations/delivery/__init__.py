"""Claim, send, record: how a plan reaches its destination."""

from activations.delivery.deliverer import Deliverer, Progress, Tally
from activations.delivery.rows import Rows
from activations.delivery.transport import RequestsTransport, Transport

__all__ = ["Deliverer", "Progress", "RequestsTransport", "Rows", "Tally", "Transport"]
