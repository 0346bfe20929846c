"""Balances, their ledger, overages and recharges."""

from cli.resources.tables import texts
from cli.resources.tables.model import Column, Form, Resource, Verb

_BALANCE = (
    Column("customer", "customer_id", Form.ID),
    Column("id", "balance_id", Form.ID),
    Column("kind", "kind", Form.STATE),
    Column("remaining", texts.amount("remaining"), Form.NUMBER),
    Column("granted", texts.amount("granted"), Form.NUMBER, rank=1),
    Column("held", texts.amount("held"), Form.NUMBER, rank=3),
    Column("priority", "priority", Form.NUMBER, rank=4),
    Column("voided", "void_time", Form.TIME, rank=2),
)
_ENTRY = (
    Column("number", "entry_number", Form.NUMBER),
    Column("time", "create_time", Form.TIME),
    Column("balance", "balance_id", Form.ID),
    Column("type", "type", Form.STATE),
    Column("amount", "amount", Form.NUMBER),
    Column("remaining", "remaining", Form.NUMBER),
    Column("adjustment", "adjustment_id", Form.ID, rank=1),
)
_POINT = (
    Column("time", "point_time", Form.TIME),
    Column("remaining", "value", Form.NUMBER),
)
_OVERAGE = (
    Column("customer", "customer_id", Form.ID),
    Column("amount", texts.amount("amount"), Form.NUMBER),
    Column("held", texts.amount("held"), Form.NUMBER, rank=1),
    Column("updated", "update_time", Form.TIME),
)
_POLICY = (
    Column("customer", "customer_id", Form.ID),
    Column("balance", "balance_id", Form.ID),
    Column("state", "state", Form.STATE),
    Column("below", "below", Form.NUMBER),
    Column(
        "recharge",
        lambda policy: f"to {policy.up_to.level}" if policy.HasField("up_to") else f"+{policy.fixed.amount}",
    ),
    Column("open", "open_recharge_id", Form.ID, rank=2),
    Column("failed", "failed_attempts", Form.NUMBER, rank=1),
)
_RECHARGE = (
    Column("customer", "customer_id", Form.ID),
    Column("id", "recharge_id", Form.ID),
    Column("state", "state", Form.STATE),
    Column("amount", texts.amount("amount"), Form.NUMBER),
    Column("balance", "balance_id", Form.ID, rank=1),
    Column("attempt", "attempt", Form.NUMBER, rank=3),
    Column("requested", "create_time", Form.TIME),
    Column("expires", "expire_time", Form.TIME, rank=2),
)
_OF_BALANCE = ("customer_id", "balance_id")

RESOURCES = (
    Resource(
        "balances",
        "balance",
        "Balances: commits, credits, seats and licences.",
        _OF_BALANCE,
        _BALANCE,
        (
            Verb("list", "AccountService/ListBalances"),
            Verb("get", "AccountService/GetBalance"),
            Verb("entries", "AccountService/ListBalanceEntries", _OF_BALANCE, columns=_ENTRY),
            Verb("series", "AccountService/GetBalanceSeries", _OF_BALANCE, "points", _POINT),
            Verb("adjust", "AccountService/AdjustBalance", _OF_BALANCE, done="adjusted"),
            Verb(
                "decrement",
                "AccountService/DecrementBalances",
                ("customer_id",),
                item="entries",
                columns=_ENTRY,
                done="decremented",
            ),
            Verb(
                "void",
                "AccountService/VoidBalance",
                irreversible="voids the balance {balance_id} of {customer_id} for good: nothing remains of it",
                done="voided",
            ),
        ),
        field="balance",
        put="AccountService/PutBalance",
        get="AccountService/GetBalance",
    ),
    Resource(
        "overages",
        "overage",
        "What usage took beyond the balances of customers.",
        (),
        _OVERAGE,
        (Verb("list", "AccountService/ListOverages"),),
    ),
    Resource(
        "recharge-policies",
        "recharge policy",
        "When balances ask to be filled up.",
        _OF_BALANCE,
        _POLICY,
        (
            Verb("list", "AccountService/ListRechargePolicies"),
            Verb("get", "AccountService/GetRechargePolicy"),
            Verb("enable", "AccountService/EnableRechargePolicy", done="enabled"),
            Verb(
                "delete",
                "AccountService/DeleteRechargePolicy",
                irreversible="deletes the recharge policy of the balance {balance_id} of {customer_id}, and cancels"
                " its open recharge",
                done="deleted",
            ),
        ),
        field="recharge_policy",
        put="AccountService/PutRechargePolicy",
        get="AccountService/GetRechargePolicy",
    ),
    Resource(
        "recharges",
        "recharge",
        "Recharges that balances asked for.",
        ("customer_id", "recharge_id"),
        _RECHARGE,
        (
            Verb("list", "AccountService/ListRecharges"),
            Verb("get", "AccountService/GetRecharge"),
            Verb("report", "AccountService/ReportRecharge", item="recharge", done="reported"),
        ),
    ),
)
