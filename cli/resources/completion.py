"""Shell completion of ids, which it asks the server for, and of values of enums."""

from dataclasses import dataclass
from typing import Any

import click
from click.shell_completion import CompletionItem

TIMEOUT = 1.5  # seconds; a shell waits meanwhile
PAGE = 200  # ids that are read at most


@dataclass(frozen=True)
class Source:
    """Where the values of an id come from. items: the field of the answer. hint: of an item, shown beside its id.

    within: an id that the list needs, taken from the arguments before.
    """

    method: str
    items: str
    hint: str = "display_name"
    within: str = ""


SOURCES = {
    "alert_id": Source("AlertService/ListAlerts", "alerts"),
    "customer_id": Source("AccountService/ListCustomers", "customers"),
    "parent_customer_id": Source("AccountService/ListCustomers", "customers"),
    "plan_id": Source("AccountService/ListPlans", "plans"),
    "metric_id": Source("AccountService/ListMetrics", "metrics"),
    "limit_id": Source("AccountService/ListLimits", "limits"),
    "endpoint_id": Source("WebhookService/ListEndpoints", "endpoints", "url"),
    "delivery_id": Source("WebhookService/ListDeliveries", "deliveries", ""),
    "notification_id": Source("AlertService/ListNotifications", "notifications", "customer_id"),
    "subscription_id": Source("AccountService/ListSubscriptions", "subscriptions", "plan_id", "customer_id"),
    "balance_id": Source("AccountService/ListBalances", "balances", "display_name", "customer_id"),
    "invoice_id": Source("AccountService/ListInvoices", "invoices", "display_name", "customer_id"),
    "recharge_id": Source("AccountService/ListRecharges", "recharges", "balance_id", "customer_id"),
    "reservation_id": Source("LimitService/ListReservations", "reservations", "", "customer_id"),
}


class IdArgument(click.Argument):
    """A positional id of a request. path: of its field."""

    def __init__(self, path: str, *, metavar: str, required: bool) -> None:
        self.path = path
        super().__init__([name_of_argument(path)], required=required, metavar=metavar)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The ids that begin with the word."""
        return ids(self.path.rpartition(".")[2], ctx, incomplete)


def name_of_argument(path: str) -> str:
    """The name of the parameter of a positional argument."""
    return "argument_" + path.replace(".", "__")


def ids(field: str, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
    """The values of an id that begin with the word; none if the server does not answer at once."""
    name = "customer_id" if field == "customer_ids" else "alert_id" if field == "alert_ids" else field
    source = SOURCES.get(name)
    if source is None:
        return []
    try:
        return _ask(name, source, ctx, incomplete)
    except Exception:  # a completion must not print anything, whatever is wrong
        return []


def _ask(field: str, source: Source, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
    from cli.connection.channels import caller
    from cli.connection.options import address_in
    from cli.resources import contract

    method = contract.method(source.method)
    request = contract.new(method.input_type)
    request.page_size = PAGE
    if source.within:
        value = ctx.params.get(name_of_argument(source.within))
        if value:
            setattr(request, source.within, value)
        elif source.method.startswith("LimitService"):
            return []
    address = address_in(ctx)
    with caller(address) as server:
        answer = server.call(method, request, TIMEOUT)
    own = field if field in {one.name for one in _item(answer, source).fields} else "customer_id"
    found: dict[str, Any] = {getattr(one, own): one for one in getattr(answer, source.items)}
    return [
        CompletionItem(value, help=str(getattr(one, source.hint)) if source.hint else None)
        for value, one in sorted(found.items())
        if value.startswith(incomplete)
    ]


def _item(answer: Any, source: Source) -> Any:
    return answer.DESCRIPTOR.fields_by_name[source.items].message_type
