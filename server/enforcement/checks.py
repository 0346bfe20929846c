"""LimitService: checks, which change nothing."""

from collections.abc import Sequence
from datetime import timedelta

from evaluator.enforcement.decisions import Decision, OveragePolicy
from generated.tidemark.v1 import limit_service_pb2 as messages
from runtime.clock import Clock
from runtime.turns import Slices
from server.calls.context import Context
from server.calls.current_call import current_organization
from server.calls.errors import ErrorTable, mapped
from server.calls.few_at_once import FewAtOnce
from server.calls.validation import Violations, to_timestamp
from server.enforcement.answers import write_checked
from server.enforcement.engine import Checker
from server.enforcement.errors import error_table
from server.enforcement.monitoring import CheckMonitoring
from server.enforcement.reading import read_check
from server.enforcement.visibility import hide_others, only_customer
from server.mapping.decisions import read_policy, write_decision
from server.mapping.requested_usage import UsageBounds, UsageTemplate, read_customers, read_templates
from store.identity.organizations import Organization

MAX_CUSTOMERS = 100  # of one BatchCheckUsage
MAX_USAGES = 100  # of one BatchCheckUsage or WatchDecisions
CHECKS_AT_ONCE = 500  # that one read covers
VALIDITY = timedelta(seconds=5)  # of the decisions of BatchCheckUsage in a cache


class CheckHandlers:
    """Serves the RPCs that check. retention: of events."""

    def __init__(self, clock: Clock, checker: Checker, *, retention: timedelta, monitoring: CheckMonitoring) -> None:
        self._clock = clock
        self._checker = checker
        self._retention = retention
        self._monitoring = monitoring
        self._errors = error_table()
        self._few = FewAtOnce()

    async def CheckUsage(self, request: messages.CheckUsageRequest, context: Context) -> messages.CheckUsageResponse:
        """What ReserveUsage would decide."""
        now = self._clock.now()
        violations = Violations()
        wanted = read_check(violations, request, UsageBounds(now, self._retention))
        violations.raise_if_any()
        organization = current_organization()
        async with self._few.turn(organization.organization_id):
            [found] = await self._checker.check(organization, [wanted.usage], wanted.policy)
        self._monitoring.count(found)
        if isinstance(found, Exception):
            raise found
        answer = messages.CheckUsageResponse()
        write_checked(answer, found, now)
        if customer_id := only_customer():
            hide_others(answer.decision, customer_id)
        return answer

    async def BatchCheckUsage(
        self, request: messages.BatchCheckUsageRequest, context: Context
    ) -> messages.BatchCheckUsageResponse:
        """The decision about each usage of each customer."""
        now = self._clock.now()
        violations = Violations()
        customer_ids = read_customers(violations, "customer_ids", request.customer_ids, MAX_CUSTOMERS)
        templates = read_templates(violations, "usages", request.usages, MAX_USAGES)
        policy = read_policy(violations, "overage_policy", request.overage_policy)
        violations.raise_if_any()
        organization = current_organization()
        pairs = [(customer_id, template) for customer_id in customer_ids for template in templates]
        found = await check_pairs(self._checker, organization, pairs, policy)
        answer = messages.BatchCheckUsageResponse(
            update_time=to_timestamp(now), valid_until_time=to_timestamp(now + VALIDITY)
        )
        slices = Slices(organization.organization_id)
        await slices.begin()
        limited_to = only_customer()
        for number, customer_id in enumerate(customer_ids):
            shown = answer.customers.add(customer_id=customer_id)
            for one in found[number * len(templates) : (number + 1) * len(templates)]:
                self._monitoring.count(one)
                write_usage_check(shown.checks.add(), one, self._errors, limited_to)
                await slices.pause()
        return answer


async def check_pairs(
    checker: Checker,
    organization: Organization,
    pairs: Sequence[tuple[str, UsageTemplate]],
    policy: OveragePolicy,
) -> list[Decision | Exception]:
    """The decisions about usage of many customers, a part of them at a time, so that no read is long."""
    found: list[Decision | Exception] = []
    for start in range(0, len(pairs), CHECKS_AT_ONCE):
        usages = [template.of(customer_id) for customer_id, template in pairs[start : start + CHECKS_AT_ONCE]]
        found += await checker.check(organization, usages, policy)
    return found


def write_usage_check(
    shown: messages.UsageCheck, found: Decision | Exception, table: ErrorTable, limited_to: str
) -> None:
    """Fills in the answer to one of many checks. limited_to: see `only_customer`."""
    if isinstance(found, Exception):
        shown.error.CopyFrom(mapped(found, table).status())
        return
    write_decision(shown.decision, found)
    if limited_to:
        hide_others(shown.decision, limited_to)
