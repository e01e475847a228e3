"""How a stand-in refuses a request: by raising what it answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response

Handler = Callable[[Request], Awaitable[Response]]


class Refused(Exception):
    """A request that is answered with an error in the vendor's own form."""

    def __init__(self, answer: Response) -> None:
        self.answer = answer
        super().__init__(str(answer.status_code))


def guarded(handler: Handler, admit: Callable[[Request], None]) -> Handler:
    """The handler for requests that are admitted; `admit` raises Refused, and so may the handler."""

    async def answer(request: Request) -> Response:
        try:
            admit(request)
            return await handler(request)
        except Refused as refused:
            return refused.answer

    return answer
