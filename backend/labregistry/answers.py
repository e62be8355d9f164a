"""What the registry answers; refusals take the form of the distribution specification's errors.

The codes are those of the specification's table "error codes" (1.1, section "Error Codes").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from backend.errors import BackendError
from backend.escape import one_line
from backend.oci.json import dump

if TYPE_CHECKING:
    from pathlib import Path

Code = Literal[
    "BLOB_UNKNOWN",
    "BLOB_UPLOAD_INVALID",
    "BLOB_UPLOAD_UNKNOWN",
    "DENIED",
    "DIGEST_INVALID",
    "MANIFEST_BLOB_UNKNOWN",
    "MANIFEST_INVALID",
    "MANIFEST_UNKNOWN",
    "NAME_INVALID",
    "NAME_UNKNOWN",
    "PAGINATION_NUMBER_INVALID",
    "SIZE_INVALID",
    "TOOMANYREQUESTS",
    "UNAUTHORIZED",
    "UNKNOWN",
    "UNSUPPORTED",
]

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FilePart:
    """A stretch of a file as a body.

    Attributes:
        path: Of the file.
        offset: Of the first byte.
        size: Bytes to send.
    """

    path: Path
    offset: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A response.

    Attributes:
        status: HTTP's.
        headers: Without Content-Length, which the sender adds.
        body: Not sent to a HEAD request, but counted.
    """

    status: int
    headers: Headers = ()
    body: bytes | FilePart = b""


def json_answer(value: object, *, status: int = 200, headers: Headers = ()) -> Answer:
    """Return an answer that holds ``value`` as JSON."""
    head = () if any(name == "Content-Type" for name, _ in headers) else (_JSON,)
    return Answer(status=status, headers=(*head, *headers), body=dump(value))


_JSON = ("Content-Type", "application/json")


class RefusedError(BackendError):
    """The request gets an error for an answer; raised and caught inside this package only.

    Args:
        status: HTTP's.
        code: The specification's.
        message: For a person who reads the client's log.
        headers: Sent with the error.
    """

    def __init__(self, status: int, code: Code, message: str, *, headers: Headers = ()) -> None:
        super().__init__(one_line(message))
        self.status = status
        self.code = code
        self.headers = headers

    def answer(self) -> Answer:
        """Return the error as the specification writes it."""
        error = {"code": self.code, "message": self.message}
        return json_answer({"errors": [error]}, status=self.status, headers=self.headers)
