"""The sign-in."""

import grpc
from aiohttp import web
from jinja2 import Environment

from console.access.api import ApiError
from console.access.sessions import Session

MAX_KEY = 512  # characters
NO_READER = "This key can only send usage. The console needs one with the role READER, EDITOR or ADMIN."
TOO_MANY = "Too many keys were refused. Try again in {} seconds."


def page(
    templates: Environment, session: Session, path: str, *, problem: str = "", ended: bool = False, status: int = 200
) -> web.Response:
    """The form. path: the page to show afterwards. ended: the visitor had a session."""
    text = templates.get_template("signin.html").render(
        session=session, next=next_path(path), problem=problem, ended=ended
    )
    return web.Response(text=text, status=status, content_type="text/html", charset="utf-8")


def next_path(path: str) -> str:
    """The page to show after the sign-in: one of this console, whatever the address says."""
    if path.startswith("/") and not path.startswith(("//", "/\\", "/signin", "/signout")) and path.isprintable():
        return path
    return "/"


def problem_of(key: str) -> str:
    """What is wrong with the text of a key; empty if nothing is."""
    if not key:
        return "Enter an API key."
    if len(key) > MAX_KEY or not key.isascii() or not key.isprintable() or " " in key:
        return "This is not an API key: a key begins with tmk_, and has letters, digits, - and _ only."
    return ""


def refusal(error: ApiError) -> str:
    """Why the server did not accept the key."""
    if error.code is grpc.StatusCode.UNAUTHENTICATED:
        return f"The server does not accept this key: {error.message}."
    if error.reason == "ERROR_REASON_ROLE_MISSING":
        return NO_READER
    if error.is_unreachable:
        return "The server does not answer. Check that it runs, and try again."
    return f"The server answered: {error.message}"
