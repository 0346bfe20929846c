"""Pages for what went wrong: what happened, and what to do."""

from dataclasses import dataclass
from typing import Any

import grpc
from aiohttp import web
from jinja2 import Environment

from console.access.api import ApiError
from console.access.sessions import Session


@dataclass(frozen=True)
class Problem:
    """What to show. details: what the server said."""

    status: int
    title: str
    advice: str
    details: str = ""


UNEXPECTED = Problem(
    500, "This page could not be made", "The log of the console says why. Other pages may work: choose one above."
)
FOREIGN_FORM = Problem(
    403,
    "The form was refused",
    "It was not sent from a page of this session, or the session has ended since. Open the page again and repeat it.",
)
OTHER_SITE = Problem(
    403,
    "Another site asked for this page",
    "Pages of this console are not shown in those of other sites: open it here.",
)
UNREADABLE_FORM = Problem(
    400, "The form cannot be read", "It is not what a page of this console sends. Open the page again and repeat it."
)
TOO_LARGE_FOR_A_FORM = Problem(
    409,
    "The alert is too large for a form",
    "It has more than 300 thresholds. Write it to a file with `tidemark export`, change the file, and apply it with"
    " `tidemark apply`.",
)
NO_READER = Problem(
    403,
    "This key cannot read",
    "The console needs a key with the role READER, EDITOR or ADMIN. Sign out, and sign in with another key.",
)
NOT_ALLOWED = Problem(
    403,
    "This key may not do that",
    "Sign in with a key that has the role EDITOR, or ADMIN for what cannot be undone.",
)
_OF_HTTP = {
    408: Problem(408, "The form came too slowly", "Check the network, and send it again."),
    404: Problem(404, "There is no such page", "Check the address, or choose a page above."),
    405: Problem(405, "There is no such page", "Check the address, or choose a page above."),
    413: Problem(413, "The form is too large", "Send at most 2 MB."),
}
_STATUS = {
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.FAILED_PRECONDITION: 409,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
    grpc.StatusCode.UNIMPLEMENTED: 501,
}


def is_of_http(status: int) -> bool:
    """Whether a status of HTTP has a page of its own."""
    return status in _OF_HTTP


def of_http(status: int) -> Problem:
    """The problem of a page that does not exist, and the like."""
    return _OF_HTTP[status]


def of_call(error: ApiError) -> Problem:
    """The problem of a call that failed."""
    status = _STATUS.get(error.code, 502)
    if error.is_unreachable:
        return Problem(
            503,
            "The server does not answer",
            "Check that it runs, and that the console may reach it. This page works again as soon as it does.",
            error.message,
        )
    match error.code:
        case grpc.StatusCode.NOT_FOUND:
            return Problem(
                status,
                "This does not exist",
                "It may have been deleted, or belong to another organization.",
                error.message,
            )
        case grpc.StatusCode.PERMISSION_DENIED:
            advice = NOT_ALLOWED.advice
            if error.reason == "ERROR_REASON_OTHER_CUSTOMER":
                advice = "The key of this session sees one customer only. Sign in with another key to see more."
            return Problem(status, NOT_ALLOWED.title, advice, error.message)
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            return Problem(status, "There is too much to do at present", "Try again in a moment.", error.message)
        case grpc.StatusCode.ABORTED:
            return Problem(
                status,
                "It was changed in the meantime",
                "Open the page again, and repeat the change on what is there now.",
                error.message,
            )
        case grpc.StatusCode.UNIMPLEMENTED:
            return Problem(
                status,
                "The server is older than this console",
                "Upgrade it to the version of the console.",
                error.message,
            )
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return Problem(
                status,
                "The server took too long",
                "Try again, with narrower filters if there are some.",
                error.message,
            )
        case grpc.StatusCode.INVALID_ARGUMENT:
            said = "; ".join(f"{one.path}: {one.description}" for one in error.violations) or error.message
            return Problem(status, "The server refused the request", "Go back, correct it, and send it again.", said)
    return Problem(status, "The server refused the request", "Its answer is below.", error.message)


def page(
    templates: Environment, problem: Problem, session: Session | None, *, is_fragment: bool = False
) -> web.Response:
    """The page of a problem; of a part of a page, a short text."""
    values: dict[str, Any] = {"problem": problem, "session": session}
    name = "problem_fragment.html" if is_fragment else "problem.html"
    return web.Response(
        text=templates.get_template(name).render(values),
        status=problem.status,
        content_type="text/html",
        charset="utf-8",
    )
