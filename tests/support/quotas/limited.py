"""Organizations with quotas: how tests set them, and what a refusal says."""

from dataclasses import dataclass

import grpc
from google.rpc import error_details_pb2

from generated.tidemark.v1 import account_service_pb2, quota_pb2
from runtime.quotas import QuotaKind, Quotas
from store.identity import organizations, quotas
from store.postgres.database import Database
from tests.support.server.running import status_of
from tests.support.usage.caller import DEADLINE, Caller, until


@dataclass(frozen=True)
class QuotaRefusal:
    """A refusal by a quota. retry_after: seconds; None without RetryInfo."""

    quota: str
    limit: int
    subject: str
    retry_after: float | None


def refusal_of(error: grpc.aio.AioRpcError) -> QuotaRefusal:
    """The refusal, with all of its details."""
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    details = status_of(error).details
    info, failure, retry = (
        error_details_pb2.ErrorInfo(),
        error_details_pb2.QuotaFailure(),
        error_details_pb2.RetryInfo(),
    )
    assert any(one.Unpack(info) for one in details)
    assert info.reason == "ERROR_REASON_QUOTA_EXCEEDED"
    assert any(one.Unpack(failure) for one in details)
    [violation] = failure.violations
    assert info.metadata["limit"] in violation.description
    waits = any(one.Unpack(retry) for one in details)
    return QuotaRefusal(
        info.metadata["quota"],
        int(info.metadata["limit"]),
        violation.subject,
        retry.retry_delay.ToTimedelta().total_seconds() if waits else None,
    )


async def shown(caller: Caller) -> dict[str, quota_pb2.Quota]:
    """The quotas of the caller's organization by kind, as its server shows them."""
    answer = await caller.accounts.GetQuotas(
        account_service_pb2.GetQuotasRequest(), metadata=caller.metadata, timeout=DEADLINE
    )
    return {quota_pb2.QuotaKind.Name(one.kind).removeprefix("QUOTA_KIND_").lower(): one for one in answer.quotas}


async def set_quotas(database: Database, caller: Caller, values: Quotas, *others: Caller) -> None:
    """Sets quotas of the caller's organization, as the command does, and waits until the servers follow."""
    async with database.transaction() as connection:
        organization_id = await organizations.find(connection, caller.organization)
        assert organization_id is not None
        await quotas.change(connection, organization_id, values)
    for one in (caller, *others):

        async def follows(one: Caller = one) -> bool:
            found = await shown(one)
            return all(
                found[kind].own and (found[kind].limit if found[kind].HasField("limit") else None) == limit
                for kind, limit in values.items()
            )

        await until(follows)


def only(kind: QuotaKind, limit: int) -> Quotas:
    """A quota of one kind."""
    return {kind: limit}
