from typing import Self

import httpx

from messaging_client.models import Fault


class ProblemError(Exception):
    """The service has refused a request.

    Attributes:
        status: of the response.
        code: the kind of problem, such as `recipient_opted_out`; `http_error` if the response names none.
        detail: the problem in words.
        errors: the invalid fields, if any.
        request_id: by which the logs of the service can be searched.
        retry_after: seconds after which the request may be repeated, if the service names them.
    """

    def __init__(
        self,
        *,
        status: int,
        code: str,
        detail: str,
        errors: list[Fault],
        request_id: str | None,
        retry_after: float | None,
    ) -> None:
        faults = "".join(f"; {fault['field']} {fault['detail']}" for fault in errors)
        super().__init__(f"{status} {code}: {detail}{faults}")
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = errors
        self.request_id = request_id
        self.retry_after = retry_after

    @classmethod
    def of(cls, response: httpx.Response) -> Self:
        """Return the problem of a response; a proxy may have sent one that is no problem document."""
        try:
            content = response.json()
        except ValueError:
            content = None
        problem = content if isinstance(content, dict) else {}
        return cls(
            status=response.status_code,
            code=problem.get("code", "http_error"),
            detail=problem.get("detail", response.reason_phrase),
            errors=problem.get("errors", []),
            request_id=response.headers.get("x-request-id"),
            retry_after=_seconds(response.headers.get("retry-after", "")),
        )


def _seconds(text: str) -> float | None:
    return float(text) if text.isascii() and text.isdecimal() else None
