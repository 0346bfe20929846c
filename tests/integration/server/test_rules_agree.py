"""The rules of buf.validate and the server refuse the same requests."""

import grpc
import protovalidate
import pytest
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from proto.documents.contract import SERVICES
from proto.documents.examples import session
from tests.support.contract.calls import answers_of, error_json, send
from tests.support.contract.candidates import Candidate, candidates
from tests.support.contract.names import Names
from tests.support.server.running import Running

# Refusals that say something about the fields of a request, whatever the state of the system.
ABOUT_FIELDS = {"ERROR_REASON_BATCH_EMPTY", "ERROR_REASON_INVALID_FIELD", "ERROR_REASON_PAGE_TOKEN_INVALID"}


async def refused(api: Running, method: MethodDescriptor, request: Message) -> bool:
    """Whether the server refuses the request because of its fields."""
    try:
        await send(api.channel, method, request)
    except grpc.aio.AioRpcError as error:
        return error_json(error)["reason"] in ABOUT_FIELDS
    return False


def against_rules(request: Message) -> list[str]:
    """The rules that the request breaks."""
    return [str(violation.proto.message) for violation in protovalidate.collect_violations(request)]


# Fields with checks that a rule of one field cannot say: they depend on other fields or lists of names, or compare
# numbers that are written as texts.
BEYOND = {
    "*.event_type",
    "*.event_types",
    "*.metadata",
    "*.page_token",
    "*.rate_per_second",
    "*.time_zone",
    "*.url",
    "AdjustBalance.amount",
    "CreateEndpoint.secret",
    "DisableAlert.subscription_id",
    "EnableAlert.subscription_id",
    "ListCustomerAlerts.alert_ids",
    "ListCustomerAlerts.customer_ids",
    "ListCustomerAlerts.statuses",
    "PutBalance.balance.credit_grant_type",
    "PutBalance.balance.kind",
    "PutBalance.balance.license_type",
    "PutLimit.limit.quantity.metric_id",
    "PutMetric.metric.aggregation",
    "PutMetric.metric.unique_property",
}
# Left out: methods that refuse a field which their mask does not name, and those whose messages have no rules yet.
LEFT_OUT = {"CreateAlert", "EvaluateUsageBatch", "UpdateAlert", "UpdateEndpoint"}


def beyond(method: MethodDescriptor, field: str) -> bool:
    """Whether the server checks the field beyond what its rules say."""
    return f"{method.name}.{field}" in BEYOND or f"*.{field.rpartition('.')[2]}" in BEYOND


async def disagreement(api: Running, method: MethodDescriptor, candidate: Candidate) -> str | None:
    """How rules and server disagree about a request; None when they agree."""
    broken, by_server = against_rules(candidate.request), await refused(api, method, candidate.request)
    where = f"{method.name} {candidate.field} {candidate.what}"
    if broken and not by_server:
        return f"{where}: only the rules refuse it: {broken}"
    if by_server and not broken and not beyond(method, candidate.field):
        return f"{where}: only the server refuses it"
    return None


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.name)
async def test_rules_and_server_refuse_the_same_requests(service: ServiceDescriptor, api: Running) -> None:
    found, count = [], 0
    for method, base in await good_requests(api, service):
        assert against_rules(base) == [], method.name
        for candidate in candidates(base):
            count += 1
            found.append(await disagreement(api, method, candidate))
    if disagreements := [each for each in found if each is not None]:
        pytest.fail("\n".join(disagreements))
    assert count > 500


async def good_requests(api: Running, service: ServiceDescriptor) -> list[tuple[MethodDescriptor, Message]]:
    """The requests of the service's examples that it answers, after the whole session. Streams are left out."""
    names, found = Names(), []
    for step in session(service):
        request = names.of_server(step.request)
        if step.error is None:
            names.of_examples(await answers_of(api.channel, step.method, request, len(step.answers)))
            if not step.method.server_streaming and step.method.name not in LEFT_OUT:
                found.append((step.method, ParseDict(request, GetMessageClass(step.method.input_type)())))
    return found
