"""Requests that are refused, each with its status of HTTP."""

from typing import ClassVar

from tavq.core.errors import UsageError


class BadRequest(UsageError):
    """The request asks for something that cannot be."""

    status: ClassVar[int] = 400
    code: ClassVar[str] = "bad_request"


class Forbidden(BadRequest):
    """The request does not come from the explorer's own page."""

    status, code = 403, "forbidden"


class NotFound(BadRequest):
    """There is no such thing."""

    status, code = 404, "not_found"


class TooLarge(BadRequest):
    """The body or the image is too large."""

    status, code = 413, "too_large"


class Busy(BadRequest):
    """Too many requests at once."""

    status, code = 503, "busy"
