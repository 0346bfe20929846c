"""The error of the embedded server, with a message for operators."""


class CannotStart(Exception):
    """The embedded server cannot start. The message gives the reason, and what to do."""
