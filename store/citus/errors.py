"""What makes a database unfit for distributed tables."""


class NotACluster(Exception):
    """The server, its extension or its settings cannot hold distributed tables.

    advice: what the operator can do, one line each.
    """

    def __init__(self, message: str, *advice: str) -> None:
        super().__init__(message)
        self.advice = advice


class StillInUse(Exception):
    """Servers or notifiers are connected to a database whose tables are to be distributed now."""


class Misplaced(Exception):
    """Tables lie elsewhere than `store.tables.placement` says."""
