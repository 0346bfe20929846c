"""What goes wrong with the embedded server, in words that an operator can use."""


class CannotStart(Exception):
    """The embedded server cannot be started; the message says why and what to do."""
