"""Lists and who is on them."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence

from starlette.requests import Request
from starlette.responses import Response

from activations.sandbox.klaviyo.jsonapi import Refusal, document, iso, read_body, root_of
from activations.sandbox.klaviyo.profiles import check_number, require_profiles
from activations.sandbox.state import State

MAX_RELATIONSHIP = 1_000


class Lists:
    """`/api/lists` and the profiles related to them."""

    def __init__(self, state: State) -> None:
        self.state = state

    async def show(self, request: Request) -> Response:
        list_id = request.path_params["list_id"]
        row = self.state.one("select * from klaviyo_lists where list_id = ?", list_id)
        if row is None:
            raise Refusal(404, "not_found", "There is no such list.")
        attributes = {"name": row["name"], "opt_in_process": "single_opt_in"}
        links = {"self": f"{root_of(request)}/api/lists/{list_id}/"}
        return document({"type": "list", "id": list_id, "attributes": attributes, "links": links}, request)

    async def add_members(self, request: Request) -> Response:
        return await self._change_members(request, join)

    async def remove_members(self, request: Request) -> Response:
        return await self._change_members(request, _leave)

    async def _change_members(
        self, request: Request, change: Callable[[sqlite3.Connection, str, Sequence[str]], None]
    ) -> Response:
        body = await read_body(request)
        ids = [str(item.get("id")) for item in body.get("data") or []]
        check_number(ids, MAX_RELATIONSHIP)
        with self.state.transaction() as db:
            require_lists(db, [request.path_params["list_id"]])
            require_profiles(db, ids)
            change(db, request.path_params["list_id"], ids)
        return Response(status_code=204)


def require_lists(db: sqlite3.Connection, lists: Sequence[str]) -> None:
    for list_id in lists:
        if not db.execute("select 1 from klaviyo_lists where list_id = ?", (list_id,)).fetchone():
            raise Refusal(404, "not_found", "There is no such list.", "/data/relationships/lists")


def join(db: sqlite3.Connection, list_id: str, ids: Sequence[str]) -> None:
    now = iso(time.time())
    db.executemany("insert or ignore into klaviyo_members values (?, ?, ?)", [(list_id, i, now) for i in ids])


def _leave(db: sqlite3.Connection, list_id: str, ids: Sequence[str]) -> None:
    db.executemany(
        "delete from klaviyo_members where list_id = ? and profile_id = ?", [(list_id, i) for i in ids]
    )
