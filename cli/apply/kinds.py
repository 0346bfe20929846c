"""The kinds of what a file can declare: how each is named, found, put, and removed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cli.listen.labels import LISTEN_LABEL
from cli.resources import contract
from cli.resources.documents import strip

OWNER_LABEL = "tidemark.apply"  # of what apply has created or changed; its value is the owner

ARCHIVED = 3  # the state of an alert


@dataclass(frozen=True)
class Kind:
    """A kind of resources. name: in files. ids: its fields that name it.

    reads, puts: the RPCs that list all, and that create or replace one. creates, updates: those of a kind without a
    put. removes: the RPC of --prune; empty: it is never pruned, because it has no labels that say who owns it.
    """

    name: str
    one: str
    field: str
    ids: tuple[str, ...]
    reads: str
    puts: str = ""
    creates: str = ""
    updates: str = ""
    removes: str = ""
    removal: str = ""

    @property
    def has_labels(self) -> bool:
        """Whether labels say who owns it."""
        return bool(self.removes)

    def new(self) -> Any:
        """An empty message of the kind."""
        method = contract.method(self.puts or self.updates)
        return contract.new(contract.message_type(method.input_type.fields_by_name[self.field]))

    def key(self, message: Any) -> str:
        """What a message is found by; empty if it has nothing to be found by."""
        if self.name == "alerts":
            return str(message.uniqueness_key or message.alert_id)
        if self.name == "endpoints":
            return str(message.endpoint_id or message.display_name)
        parts = [getattr(message, name) for name in self.ids]
        return " ".join(parts) if all(parts) else ""

    def keys(self, message: Any) -> tuple[str, ...]:
        """All keys under which a stored message is found."""
        if self.name == "alerts":
            keys = (message.alert_id, "" if message.uniqueness_key_released else message.uniqueness_key)
        elif self.name == "endpoints":
            keys = (message.endpoint_id, message.display_name)
        else:
            keys = (self.key(message), "")
        return tuple(key for key in keys if key)

    def can_be_declared(self, message: Any) -> bool:
        """Whether a stored message can be in a file: no archived alert, and no endpoint of `tidemark listen`."""
        if self.name == "alerts":
            return bool(message.state != ARCHIVED)
        return self.name != "endpoints" or LISTEN_LABEL not in message.labels

    def declared(self, message: Any) -> Any:
        """What a file would say about a stored message: without what only the server sets."""
        made = type(message)()
        made.CopyFrom(message)
        strip(made)
        if "as_of_time" in made.DESCRIPTOR.fields_by_name:
            made.ClearField("as_of_time")
        if self.has_labels:
            made.labels.pop(OWNER_LABEL, None)
        if self.name == "alerts" and not made.uniqueness_key:
            made.alert_id = message.alert_id
        if self.name == "endpoints" and not made.display_name:
            made.endpoint_id = message.endpoint_id
        if self.has_labels and made.state == 1:  # active, enabled: what it is unless a file says otherwise
            made.ClearField("state")
        return made


# In the order in which they are applied: what others refer to comes first.
KINDS = (
    Kind(
        "metrics",
        "metric",
        "metric",
        ("metric_id",),
        "AccountService/ListMetrics",
        puts="AccountService/PutMetric",
    ),
    Kind("plans", "plan", "plan", ("plan_id",), "AccountService/ListPlans", puts="AccountService/PutPlan"),
    Kind("limits", "limit", "limit", ("limit_id",), "AccountService/ListLimits", puts="AccountService/PutLimit"),
    Kind(
        "recharge_policies",
        "recharge policy",
        "recharge_policy",
        ("customer_id", "balance_id"),
        "AccountService/ListRechargePolicies",
        puts="AccountService/PutRechargePolicy",
    ),
    Kind(
        "alerts",
        "alert",
        "alert",
        ("alert_id",),
        "AlertService/ListAlerts",
        updates="AlertService/UpdateAlert",
        removes="AlertService/ArchiveAlert",
        removal="archive",
    ),
    Kind(
        "endpoints",
        "endpoint",
        "endpoint",
        ("endpoint_id",),
        "WebhookService/ListEndpoints",
        creates="WebhookService/CreateEndpoint",
        updates="WebhookService/UpdateEndpoint",
        removes="WebhookService/DeleteEndpoint",
        removal="delete",
    ),
)
BY_NAME: dict[str, Kind] = {kind.name: kind for kind in KINDS}


def chosen(names: Sequence[str]) -> list[Kind]:
    """The kinds of these names, in the order in which they are applied; all for no names."""
    wanted = {name.replace("-", "_") for name in names}
    return [kind for kind in KINDS if not wanted or kind.name in wanted]
