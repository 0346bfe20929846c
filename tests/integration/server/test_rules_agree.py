"""The rules of buf.validate and the server refuse the same requests."""

import asyncio
from collections.abc import Iterable

import grpc
import protovalidate
import pytest
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import code_pb2

from generated.tidemark.v1 import alert_pb2, alert_service_pb2
from proto.documents.contract import METHODS, SERVICES
from proto.documents.examples import session
from tests.support.contract.calls import answers_of, error_json, send
from tests.support.contract.candidates import Candidate, candidates
from tests.support.contract.definitions import CONDITIONS, new_alert
from tests.support.contract.names import Names
from tests.support.server.running import Running

TOGETHER = 8  # requests that are sent at the same time

METHOD_OF = {method.name: method for method in METHODS}

# Refusals that say something about the fields of a request, whatever the state of the system.
ABOUT_FIELDS = {"ERROR_REASON_BATCH_EMPTY", "ERROR_REASON_INVALID_FIELD", "ERROR_REASON_PAGE_TOKEN_INVALID"}


async def refused(api: Running, method: MethodDescriptor, request: Message) -> bool:
    """Whether the server refuses the request, or an event in it, because of its fields."""
    try:
        answers = await send(api.channel, method, request)
    except grpc.aio.AioRpcError as error:
        return error_json(error)["reason"] in ABOUT_FIELDS
    return any(rejects_an_event(answer) for answer in answers)


def rejects_an_event(answer: Message) -> bool:
    """Whether an event of a batch was rejected because of its fields."""
    if not isinstance(answer, alert_service_pb2.EvaluateUsageBatchResponse):
        return False
    return any(rejection.status.code == code_pb2.INVALID_ARGUMENT for rejection in answer.outcome.rejected)


def against_rules(request: Message) -> list[str]:
    """The rules that the request breaks."""
    return [str(violation.proto.message) for violation in protovalidate.collect_violations(request)]


# Requests that are compared at least, of a service with few methods.
LEAST = {"AuditService": 200}

# Fields with checks that a rule of one field cannot say: they depend on other fields or lists of names, or compare
# numbers that are written as texts.
BEYOND = {
    "*.entity",
    "*.event_type",
    "*.event_types",
    "*.page_token",
    "*.rate_per_second",
    "*.resolve_value",
    "*.time_zone",
    "*.uniqueness_key",
    "*.url",
    "AdjustBalance.amount",
    "DecrementBalances.amount",
    "BatchCheckUsage.usages.0.currency",
    "BatchCreateAlerts.requests.0.alert.state",
    "BatchCreateAlerts.requests.0.request_id",
    "CheckUsage.usage.currency",
    "CreateAlert.alert.cost_exceeded.grouping_keys",
    "CreateAlert.alert.cost_exceeded.threshold_overrides.0.group_values.0.key",
    "CreateAlert.alert.cost_exceeded.threshold_overrides.0.group_values.0.value",
    "CreateAlert.alert.state",
    "CreateEndpoint.secret",
    "DisableAlert.etag",
    "DisableAlert.subscription_id",
    "EnableAlert.subscription_id",
    "EvaluateUsageBatch.batch.events.0.cost",
    "EvaluateUsageBatch.batch.events.0.event_name",
    "EvaluateUsageBatch.batch.events.0.metric_id",
    "EvaluateUsageBatch.batch.events.0.quantity",
    "ExplainCustomerAlert.subscription_id",
    "GetCustomerAlert.subscription_id",
    "GetCustomerAlertSeries.subscription_id",
    "ListRecharges.balance_id",
    "ListCustomerAlerts.alert_ids",
    "ListCustomerAlerts.customer_ids",
    "ListCustomerAlerts.statuses",
    "PreviewAlert.alert.state",
    "PutBalance.balance.credit_grant_type",
    "PutBalance.balance.kind",
    "PutBalance.balance.license_type",
    "PutLimit.limit.quantity.metric_id",
    "PutRechargePolicy.recharge_policy.below",
    "PutRechargePolicy.recharge_policy.max_amount_per_period",
    "PutRechargePolicy.recharge_policy.up_to.level",
    "PutRechargePolicy.recharge_policy.up_to.min_amount",
    "ReportRecharge.paid.amount",
    "PutMetric.metric.aggregation",
    "PutMetric.metric.quantity_property",
    "PutMetric.metric.unique_property",
    "ReserveUsage.usage.currency",
}


# Required in a new alert, and unset in an update of another field.
OF_NEW_ALERTS = {"currency", "license_type", "metric_id", "seat_filter", "seat_group_key", "thresholds", *CONDITIONS}


def beyond(method: MethodDescriptor, candidate: Candidate) -> bool:
    """Whether the server checks the field beyond what its rules say."""
    field = candidate.field.rpartition(".")[2]
    creates = method.name in ("CreateAlert", "BatchCreateAlerts", "PreviewAlert")
    if creates and field in OF_NEW_ALERTS and candidate.what in ("cleared", "''"):
        return True
    return f"{method.name}.{candidate.field}" in BEYOND or f"*.{field}" in BEYOND


async def disagreement(api: Running, method: MethodDescriptor, candidate: Candidate) -> str | None:
    """How rules and server disagree about a request; None when they agree."""
    broken, by_server = against_rules(candidate.request), await refused(api, method, candidate.request)
    where = f"{method.name} {candidate.field} {candidate.what}"
    if broken and not by_server:
        return f"{where}: only the rules refuse it: {broken}"
    if by_server and not broken and not beyond(method, candidate):
        return f"{where}: only the server refuses it"
    return None


async def disagreements(api: Running, method: MethodDescriptor, requests: Iterable[Candidate]) -> list[str | None]:
    """The `disagreement` about each request. Some are sent together: their changes then share transactions."""
    found: list[str | None] = []
    waiting = list(requests)
    while waiting:
        some, waiting = waiting[:TOGETHER], waiting[TOGETHER:]
        found += await asyncio.gather(*(disagreement(api, method, candidate) for candidate in some))
    return found


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.name)
async def test_rules_and_server_refuse_the_same_requests(service: ServiceDescriptor, api: Running) -> None:
    found: list[str | None] = []
    for method, base in await good_requests(api, service):
        assert against_rules(base) == [], method.name
        found += await disagreements(api, method, candidates(base))
    fail_with(found)
    assert len(found) > LEAST.get(service.name, 500)


def fail_with(found: Iterable[str | None]) -> None:
    """Fails with the disagreements that are found, all together."""
    if disagreements := [each for each in found if each is not None]:
        pytest.fail("\n".join(disagreements))


async def good_requests(api: Running, service: ServiceDescriptor) -> list[tuple[MethodDescriptor, Message]]:
    """The requests of the service's examples that it answers, after the whole session. Streams are left out."""
    names, found = Names(), []
    for step in session(service):
        request = names.of_server(step.request)
        if step.error is None:
            answers = await answers_of(api.channel, step.method, request, len(step.answers))
            names.of_examples(answers)
            rejected = any("rejected" in answer.get("outcome", {}) for answer in answers)
            message = ParseDict(request, GetMessageClass(step.method.input_type)())
            if not step.method.server_streaming and not rejected:
                if step.method.name.startswith("Update"):
                    message.ClearField("update_mask")  # every field that is set is then checked
                found.append((step.method, message))
    return found


async def test_rules_and_server_refuse_the_same_definitions(api: Running) -> None:
    method, found = METHOD_OF["CreateAlert"], list[str | None]()
    for condition in CONDITIONS:
        base = new_alert(condition)
        assert against_rules(base) == [], condition
        assert not await refused(api, method, base), condition
        of_condition = [one for one in candidates(base) if one.field.startswith(f"alert.{condition}")]
        found += await disagreements(api, method, of_condition)
    fail_with(found)
    assert len(found) > 500


def test_every_condition_has_a_definition() -> None:
    cases = alert_pb2.Alert.DESCRIPTOR.oneofs_by_name["condition"].fields
    assert list(CONDITIONS) == [case.name for case in cases]
