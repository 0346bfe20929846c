"""Errors of a Citus cluster whose SQLSTATE does not say what they mean.

The coordinator passes most errors of its nodes on as they are. The errors of a COPY come without their state: as
XX000 (internal_error), or as 58030 (io_error) when a node is lost, with the node's text. So they are classified by
text, here and nowhere else. A text that is not known stays a fault.

Only errors of these states are classified by text. An error of one PostgreSQL server that has one of them, such as a
damaged index, has none of these texts.
"""

import re

_UNCLEAR = frozenset({"XX000", "58030"})  # states that errors of a node get on their way through the coordinator

# The beginning of a text, and the SQLSTATE that the error has at its node, or would have.
#
# The texts of PostgreSQL are the English ones; the nodes of a cluster have to be set to `lc_messages = C`.
_STATES: tuple[tuple[str, str], ...] = (
    (r"duplicate key value violates unique constraint", "23505"),
    # The loss of a node, met by an open session; later statements have 08006.
    (r"failure on connection marked as essential: ", "08006"),
    (r"connection to the remote node .* failed", "08006"),
    (r"could not connect to any active placements", "08006"),
    (r"could not establish any connections to the node ", "08006"),
    (r"connection establishment for node .* failed", "08006"),
    (r"could not find an available connection", "08006"),
    (r"failed to COPY to shard \d+ on ", "08006"),
    (r"failed to complete COPY on ", "08006"),
    (r"failed to prepare transaction '[^']*' on host ", "08006"),
    (r"could not commit transaction for shard \d+ on at least one active node", "08006"),
    (r"server closed the connection unexpectedly", "08006"),
    (r"SSL connection has been closed unexpectedly", "08006"),
    (r"SSL (SYSCALL )?error: ", "08006"),
    (r"could not (receive data from|send data to) server: ", "08006"),
    (r"(connection not open|no connection to the server)", "08006"),
    (r"terminating connection due to ", "57P01"),
    (r"the database system is (starting up|shutting down|in recovery mode|not yet accepting connections)", "57P03"),
    (r"(sorry, too many clients already|remaining connection slots are reserved)", "53300"),
    # What another transaction causes.
    (r"deadlock detected", "40P01"),
    (r"canceling the transaction since it was involved in a distributed deadlock", "40P01"),
    (r"could not serialize access due to ", "40001"),
    (r"canceling statement due to lock timeout", "55P03"),
    (r"could not acquire the lock required to ", "55P03"),  # a shard is being moved
    (r"canceling statement due to (statement timeout|user request)", "57014"),
)
# Where a text, or the context of an error that a node has sent, names the node.
_NODE = re.compile(
    r"(?:remote node (?:[^\s@]+@)?|essential: |the node |for node |command on |COPY on |\bshard \d+ on |\bhost )"
    r"(?P<node>\S+:\d+)\b"
)
_PATTERNS = tuple((re.compile(text), state) for text, state in _STATES)


def true_state(state: str, message: str) -> str:
    """The SQLSTATE of what an error means: `state` itself, unless the cluster has replaced that of a node."""
    if state not in _UNCLEAR:
        return state
    return next((true for pattern, true in _PATTERNS if pattern.match(message)), state)


def node_in(*texts: str) -> str | None:
    """The address of the node, as host:port, that the texts of an error name; None if they name none."""
    found = (_NODE.search(text) for text in texts)
    return next((one["node"] for one in found if one is not None), None)
