"""All resources, in the order of the help."""

from cli.resources.tables import accounts, alerts, balances, enforcement, webhooks
from cli.resources.tables.model import Resource

RESOURCES: dict[str, Resource] = {
    resource.name: resource
    for resource in (
        *alerts.RESOURCES,
        *accounts.RESOURCES,
        *balances.RESOURCES,
        *enforcement.RESOURCES,
        *webhooks.RESOURCES,
    )
}

# The RPCs that no command of the table calls, and why.
ELSEWHERE = {
    "AlertService/EvaluateUsage": "`tidemark replay` streams usage",
    "AlertService/ExplainCustomerAlert": "`tidemark explain`",
    "AlertService/PreviewAlert": "the form of the console, which makes the alert that it previews",
    "LimitService/CheckUsage": "`tidemark check`",
    "LimitService/EnforceUsage": "a stream for gateways, which ask without a person",
}
