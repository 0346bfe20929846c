"""Reservations, and the decisions of limits."""

from cli.resources.tables.model import Column, Form, Resource, Verb

_RESERVATION = (
    Column("customer", "customer_id", Form.ID),
    Column("id", "reservation_id", Form.ID),
    Column("state", "state", Form.STATE),
    Column("metric", "usage.metric_id"),
    Column("asked", "usage.quantity", Form.NUMBER, rank=2),
    Column("granted", "granted_quantity", Form.NUMBER),
    Column("settled", "settled_quantity", Form.NUMBER, rank=1),
    Column("expires", "expire_time", Form.TIME),
    Column("ended", "end_time", Form.TIME, rank=3),
)
_DECISIONS = (
    Column("customer", "customer_id", Form.ID),
    Column(
        "decisions",
        lambda customer: ", ".join(
            {1: "allowed", 2: "capped", 3: "denied"}.get(one.decision.outcome, "error") for one in customer.checks
        ),
    ),
)
_WATCHED = (
    Column("customer", "customer_id", Form.ID),
    Column("usage", "usage_index", Form.NUMBER),
    Column("decision", "decision.outcome", Form.STATE),
    Column("granted", "decision.granted_quantity", Form.NUMBER),
    Column("error", "error.message", rank=1),
)

RESOURCES = (
    Resource(
        "reservations",
        "reservation",
        "What customers hold of their limits and balances.",
        ("customer_id", "reservation_id"),
        _RESERVATION,
        (
            Verb("list", "LimitService/ListReservations"),
            Verb("get", "LimitService/GetReservation"),
            Verb(
                "create",
                "LimitService/ReserveUsage",
                ("usage.customer_id", "reservation_id"),
                item="reservation",
                inside="usage",
                done="decided about",
            ),
            Verb(
                "settle",
                "LimitService/SettleReservation",
                item="reservation",
                done="settled",
            ),
            Verb("extend", "LimitService/ExtendReservation", done="extended"),
            Verb(
                "release",
                "LimitService/ReleaseReservation",
                item="reservation",
                irreversible="releases what the reservation {reservation_id} of {customer_id} holds: its caller"
                " cannot settle it any more",
                done="released",
            ),
        ),
    ),
    Resource(
        "decisions",
        "decision",
        "Whether usage of several customers fits into their limits and balances.",
        (),
        _DECISIONS,
        (
            Verb("check", "LimitService/BatchCheckUsage", item="customers"),
            Verb("watch", "LimitService/WatchDecisions", item="decisions", columns=_WATCHED),
        ),
    ),
)
