"""Requests and the sandbox's answers against the contracts that the vendors publish.

The contracts are not part of this project (`VENDOR_SPECS_DIR` names their folder); without them these tests say that
they were skipped. Every operation has a negative control: a checker that refuses nothing proves nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from types import ModuleType
from typing import Any

import pytest
import requests

from activations.sandbox.server import RunningSandbox
from tests.contract.driver import Driver, a_change, a_removal, an_addition

Exchanged = tuple[requests.PreparedRequest, requests.Response]
Control = Callable[[Any], Any]


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One operation of one vendor: which requests it covers, and bodies or headers that must be refused."""

    name: str
    contract: str
    method: str
    path: str
    broken_body: Control | None = None
    missing_header: str = "Authorization"

    def covers(self, request: requests.PreparedRequest) -> bool:
        path = vendor_path(request).split("?")[0]
        return request.method == self.method and re.fullmatch(self.path, path) is not None


def _without_type(body: Any) -> Any:
    body["data"].pop("type")
    return body


def _foreign_member(body: Any) -> Any:
    body["data"][0]["type"] = "contact"
    return body


def _refused_consent(body: Any) -> Any:
    marketing = body["data"]["attributes"]["profiles"]["data"][0]["attributes"]["subscriptions"]["email"][
        "marketing"
    ]
    marketing["consent"] = "YES"
    return body


OPERATIONS = (
    Operation(
        name="klaviyo import job",
        contract="klaviyo",
        method="POST",
        path=r"/api/profile-bulk-import-jobs",
        broken_body=_without_type,
    ),
    Operation(
        name="klaviyo job state",
        contract="klaviyo",
        method="GET",
        path=r"/api/profile-bulk-import-jobs/[^/]+",
        missing_header="revision",
    ),
    Operation(
        name="klaviyo import errors",
        contract="klaviyo",
        method="GET",
        path=r"/api/profile-bulk-import-jobs/[^/]+/import-errors",
        missing_header="revision",
    ),
    Operation(
        name="klaviyo job profiles",
        contract="klaviyo",
        method="GET",
        path=r"/api/profile-bulk-import-jobs/[^/]+/profiles",
        missing_header="revision",
    ),
    Operation(
        name="klaviyo update profile",
        contract="klaviyo",
        method="PATCH",
        path=r"/api/profiles/[^/]+",
        broken_body=_without_type,
    ),
    Operation(
        name="klaviyo subscribe",
        contract="klaviyo",
        method="POST",
        path=r"/api/profile-subscription-bulk-create-jobs",
        broken_body=_refused_consent,
    ),
    Operation(
        name="klaviyo find profiles",
        contract="klaviyo",
        method="GET",
        path=r"/api/profiles",
        missing_header="revision",
    ),
    Operation(
        name="klaviyo remove from list",
        contract="klaviyo",
        method="DELETE",
        path=r"/api/lists/[^/]+/relationships/profiles",
        broken_body=_foreign_member,
    ),
    Operation(
        name="klaviyo list",
        contract="klaviyo",
        method="GET",
        path=r"/api/lists/[^/]+",
        missing_header="revision",
    ),
    Operation(
        name="twilio send",
        contract="twilio.messages",
        method="POST",
        path=r"/2010-04-01/Accounts/[^/]+/Messages\.json",
        broken_body=lambda form: form.replace("To=", "Recipient="),
    ),
)
every_operation = pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)


@pytest.fixture
def exchanged(build: Any, driver: Driver, sandbox: RunningSandbox) -> list[Exchanged]:
    """Every operation once, over real HTTP, with bodies as full as they get."""
    _talk_to_klaviyo(build, driver, sandbox)
    fields = {"first_name": "Ada", "items": 2}
    driver.run(build("twilio"), [an_addition(0, {"phone": "+12125550123"}, fields)])
    driver.run(build("twilio"), [an_addition(0, {"phone": "+12125550199"}, fields)])
    return driver.seen


def _talk_to_klaviyo(build: Any, driver: Driver, sandbox: RunningSandbox) -> None:
    klaviyo = build("klaviyo")
    fields = {
        "first_name": "Ada",
        "location.city": "Utica",
        "lead_score": 7,
        "revenue": Decimal("1.5"),
        "nickname": None,
        "last_name": None,
    }
    people = [
        an_addition(n, {"email": f"p{n}@example.com", "phone_number": f"+1212555010{n}"}, fields)
        for n in range(2)
    ]
    added = driver.run(klaviyo, [*people, an_addition(7, {"email": "broken@@example"})])
    driver.run(
        klaviyo, [a_change(0, {"email": "p0@example.com"}, {"lead_score": 8}, added["0"].destination_key)]
    )
    driver.run(
        klaviyo, [a_removal(0, added["0"].destination_key), a_removal(1, None, {"email": "p1@example.com"})]
    )
    driver.run(klaviyo, [a_removal(5, "01" + "A" * 24)])


def vendor_path(request: requests.PreparedRequest) -> str:
    """The path as the vendor sees it, without the sandbox's prefix."""
    return re.sub(r"^/(klaviyo|twilio|meta|webhook)", "", request.path_url)


def as_vendor_sees(request: requests.PreparedRequest) -> requests.PreparedRequest:
    copy = request.copy()
    copy.url = "https://vendor.invalid" + vendor_path(request)
    return copy


def _of(operation: Operation, exchanged: list[Exchanged]) -> list[Exchanged]:
    return [(request, answer) for request, answer in exchanged if operation.covers(request)]


@every_operation
def test_requests_satisfy_the_published_contract(
    operation: Operation, exchanged: list[Exchanged], contracts: ModuleType
) -> None:
    found = _of(operation, exchanged)
    assert found
    for request, _ in found:
        assert contracts.check(as_vendor_sees(request), operation.contract, strict=True) == []


@every_operation
def test_the_checker_refuses_a_broken_request(
    operation: Operation, exchanged: list[Exchanged], contracts: ModuleType
) -> None:
    request = as_vendor_sees(_of(operation, exchanged)[0][0])
    without_header = request.copy()
    del without_header.headers[operation.missing_header]
    assert contracts.check(without_header, operation.contract)
    if operation.broken_body:
        broken = request.copy()
        broken.body = _broken(operation.broken_body, request.body)
        assert contracts.check(broken, operation.contract)


def _broken(control: Control, body: Any) -> str | bytes:
    text = body.decode() if isinstance(body, bytes) else body
    return (
        control(text) if "=" in text and not text.startswith("{") else json.dumps(control(json.loads(text)))
    )


@every_operation
def test_the_sandbox_answers_as_the_contract_says(
    operation: Operation, exchanged: list[Exchanged], contracts: ModuleType
) -> None:
    for request, answer in _of(operation, exchanged):
        if operation.contract == "twilio.messages" and not answer.ok:
            continue  # Twilio's file describes successes only.
        contracts.validate_response(
            as_vendor_sees(request), operation.contract, answer.status_code, answer.headers, answer.content
        )


def test_the_checker_refuses_a_broken_answer(exchanged: list[Exchanged], contracts: ModuleType) -> None:
    for operation in OPERATIONS:
        request, answer = next(item for item in _of(operation, exchanged) if item[1].ok)
        if answer.status_code in (202, 204) and not answer.content:
            continue
        body = answer.json()
        broken = {**body, "data": 1} if "data" in body else {**body, "status": "shredded"}
        with pytest.raises(contracts.ContractError):
            contracts.validate_response(
                as_vendor_sees(request),
                operation.contract,
                answer.status_code,
                answer.headers,
                json.dumps(broken),
            )


def test_every_request_of_these_vendors_is_covered(exchanged: list[Exchanged]) -> None:
    for request, _ in exchanged:
        assert any(operation.covers(request) for operation in OPERATIONS), vendor_path(request)


@pytest.mark.parametrize("status", [429, 500])
def test_faults_have_the_vendors_own_shape(
    status: int, exchanged: list[Exchanged], contracts: ModuleType, sandbox: RunningSandbox
) -> None:
    operation = OPERATIONS[0]
    request, _ = _of(operation, exchanged)[0]
    fault = sandbox.sandbox.klaviyo.error(status)
    contracts.validate_response(
        as_vendor_sees(request), operation.contract, status, dict(fault.headers), bytes(fault.body)
    )
