"""Lists read about a page, however many alerts they choose from: the plans of their statements show the rows."""

from dataclasses import replace

import pytest
from sqlalchemy import text

from evaluator.alerts import ConditionType, Scope, ScopeKind
from evaluator.definitions import AlertDefinition, DefinitionState
from runtime.clock import ManualClock
from store.alerts import lists
from store.alerts.lists import AlertFilter
from store.identity import organizations
from store.postgres.database import Connection, Database
from store.views import covering_alerts
from store.views.customer_views import CustomerView
from tests.support.alerts.stored import NEW_ALERT, create_alert
from tests.support.postgres.only_one_server import reads_plans
from tests.support.postgres.plans import analyze, recorded
from tests.support.server.sharing import own_database

pytestmark = own_database

ALERTS = 3_000
PAGE = 50
EXAMINED = 300  # alerts that a page may examine in these tests

# Copies of one alert: of a customer that has three, of one that has a thousand, and of customers that have one each.
COPIES = text("""
INSERT INTO alert SELECT (jsonb_populate_record(a, jsonb_build_object(
    'alert_id', 'alt_' || md5(number::text), 'name', 'alert ' || number, 'visit_after', NULL,
    'uniqueness_key', 'key' || number, 'uniqueness_key_held', number % 2 = 0,
    'scope', 'CUSTOMER', 'customer_id', CASE WHEN number <= 3 THEN 'few' WHEN number <= 500 THEN 'many'
        ELSE 'c' || number END,
    'state', CASE WHEN number % 500 = 7 THEN 'DISABLED' WHEN number % 10 = 3 THEN 'ARCHIVED' ELSE 'ACTIVE' END,
    'condition_type', CASE WHEN number % 1000 = 5 THEN 'usage_exceeded' ELSE a.condition_type END,
    'labels', CASE WHEN number % 1500 = 9 THEN '{"env": "prod", "team": "rare"}' ELSE '{"env": "prod"}' END::jsonb,
    'create_time', a.create_time + number * interval '1 second'))).*
FROM alert a, generate_series(1, :number) AS number
WHERE organization_id = :organization_id AND alert_id = :alert_id
""")

INDEXED = {
    "everything": AlertFilter(),
    "few of one customer": AlertFilter(customer_id="few"),
    "many of one customer": AlertFilter(customer_id="many"),
    "no plan": AlertFilter(plan_id="none"),
    "no subscription": AlertFilter(subscription_id="none"),
    "a key": AlertFilter(uniqueness_key="key400"),
    "a released key": AlertFilter(uniqueness_key="key401"),
    "a common state": AlertFilter(states=(DefinitionState.ACTIVE,)),
    "a rare state": AlertFilter(states=(DefinitionState.DISABLED,)),
    "two states": AlertFilter(states=(DefinitionState.ACTIVE, DefinitionState.DISABLED)),
    "a rare label": AlertFilter(labels={"team": "rare"}),
}
EXAMINING = {
    "a rare type": AlertFilter(condition_types=(ConditionType.USAGE_EXCEEDED,)),
    "a prefix": AlertFilter(display_name_prefix="alert 299"),
    "no such prefix": AlertFilter(display_name_prefix="none"),
    "a rare label of one customer": AlertFilter(customer_id="many", labels={"team": "rare"}),
    "a common label of a rare type": AlertFilter(
        labels={"env": "prod"}, condition_types=(ConditionType.USAGE_EXCEEDED,)
    ),
}


@pytest.fixture
async def copied(database: Database, database_url: str, organization_id: int, clock: ManualClock) -> AlertDefinition:
    """The alert of all customers of which there are copies for single customers, in two organizations."""
    created = await create_alert(database, organization_id, clock)
    async with database.transaction() as connection:
        other = await organizations.get_or_create(connection, "theirs", clock.now())
    theirs = await create_alert(database, other, clock)
    async with database.transaction() as connection:
        await fill(connection, organization_id, created.alert_id, ALERTS)
        await fill(connection, other, theirs.alert_id, 100)
    await analyze(database_url, "alert")
    return created


async def fill(connection: Connection, organization_id: int, alert_id: str, number: int) -> None:
    parameters = {"organization_id": organization_id, "alert_id": alert_id, "number": number}
    await connection.execute(COPIES, parameters)


async def pages(
    database: Database, organization_id: int, filters: AlertFilter, *, newest_first: bool
) -> tuple[list[AlertDefinition], int]:
    """All alerts of a list, page by page, and the number of pages."""
    found, number, after = list[AlertDefinition](), 0, None
    async with database.transaction() as connection:
        while True:
            page = await lists.page(
                connection,
                organization_id,
                filters,
                after=after,
                limit=PAGE,
                newest_first=newest_first,
                most_examined=EXAMINED,
            )
            number += 1
            found += page.items
            if len(page.items) == PAGE:
                after = page.items[-1].create_time, page.items[-1].alert_id
            elif page.end is not None:
                after = page.end
            else:
                return found, number


@reads_plans
@pytest.mark.usefixtures("copied")
async def test_a_page_of_alerts_reads_a_page_of_an_index_or_a_bounded_number_of_alerts(
    database: Database, database_url: str, organization_id: int
) -> None:
    async with database.transaction() as connection:
        for name, filters in {**INDEXED, **EXAMINING}.items():
            for newest_first in (False, True):
                with recorded() as statements:
                    await lists.page(
                        connection,
                        organization_id,
                        filters,
                        after=None,
                        limit=PAGE,
                        newest_first=newest_first,
                        most_examined=EXAMINED,
                    )
                rows = sum(cost.rows for cost in statements.costs(database_url))
                # Beside the page, one row of each state, or the alerts with a label: once to find and once to show.
                most = (lists.MAX_LABELLED if filters.labels else 0) + (PAGE + 3 if name in INDEXED else EXAMINED + 3)
                assert rows <= most, (name, newest_first, rows)


@pytest.mark.usefixtures("copied")
@pytest.mark.parametrize("newest_first", [False, True])
async def test_pages_of_every_filter_have_each_alert_once_in_order(
    database: Database, organization_id: int, newest_first: bool
) -> None:
    everything, _ = await pages(database, organization_id, AlertFilter(), newest_first=newest_first)
    assert len(everything) == len({one.alert_id for one in everything}) == ALERTS + 1
    ages = [(one.create_time, one.alert_id) for one in everything]
    assert ages == sorted(ages, reverse=newest_first)
    for name, filters in {**INDEXED, **EXAMINING}.items():
        found, _ = await pages(database, organization_id, filters, newest_first=newest_first)
        assert [one.alert_id for one in found] == [one.alert_id for one in everything if matches(filters, one)], name


def matches(filters: AlertFilter, one: AlertDefinition) -> bool:
    """Whether an alert passes the filters that these tests use."""
    return (
        filters.customer_id in (None, one.scope.customer_id)
        and filters.plan_id in (None, one.scope.plan_id)
        and filters.subscription_id in (None, one.scope.subscription_id)
        and filters.uniqueness_key in (None, one.uniqueness_key)
        and (not filters.states or one.state in filters.states)
        and (not filters.condition_types or one.condition.condition_type in filters.condition_types)
        and filters.labels.items() <= one.labels.items()
        and one.display_name.startswith(filters.display_name_prefix)
    )


@pytest.mark.usefixtures("copied")
async def test_a_page_ends_where_the_bound_of_examined_alerts_ends(database: Database, organization_id: int) -> None:
    _, number = await pages(database, organization_id, EXAMINING["no such prefix"], newest_first=False)
    assert number == (ALERTS + 1) // EXAMINED + 1


@pytest.mark.usefixtures("copied")
async def test_a_label_that_many_alerts_have_is_found_in_the_order_of_age(
    database: Database, organization_id: int
) -> None:
    found, number = await pages(database, organization_id, AlertFilter(labels={"env": "prod"}), newest_first=False)
    assert len(found) == ALERTS
    assert number == ALERTS // PAGE + 1


@reads_plans
@pytest.mark.parametrize(("customer_id", "own"), [("few", 3), ("many", 497), ("acme", 0)])
async def test_the_alerts_of_a_customer_are_read_without_those_of_others(
    database: Database,
    database_url: str,
    organization_id: int,
    clock: ManualClock,
    copied: AlertDefinition,
    customer_id: str,
    own: int,
) -> None:
    async with database.transaction() as connection:
        await connection.execute(
            text(
                "INSERT INTO customer SELECT (jsonb_populate_record(c, jsonb_build_object('customer_id', name))).*"
                " FROM customer c, unnest(ARRAY['few', 'many']) AS name WHERE customer_id = 'acme'"
            )
        )
    async with database.transaction() as connection:
        view = await CustomerView.open(connection, organization_id, customer_id, clock.now())
        with recorded() as statements:
            page = await view.list_page((), after=None, limit=PAGE)
        everything = await view.list_page((), after=None, limit=ALERTS)
    assert len(everything.alerts) == own + 1
    assert page.alerts[0].definition.alert_id == copied.alert_id
    assert len(page.alerts) == min(PAGE, own + 1)
    assert sum(cost.rows for cost in statements.costs(database_url)) <= PAGE + 3


# Alerts of many plans, and one alert of another customer on the plan gold in each of them.
OF_PLANS = text("""
INSERT INTO alert SELECT (jsonb_populate_record(a, jsonb_build_object(
    'alert_id', 'pln_' || md5(number::text), 'uniqueness_key', NULL, 'natural_key', NULL, 'visit_after', NULL,
    'scope', CASE WHEN number % 2 = 0 THEN 'PLAN' ELSE 'CUSTOMER_PLAN' END,
    'plan_id', CASE WHEN number % 2 = 1 OR number = 2 THEN 'gold' ELSE 'plan' || number END,
    'customer_id', CASE WHEN number % 2 = 1 THEN 'c' || number END,
    'create_time', a.create_time + number * interval '1 second'))).*
FROM alert a, generate_series(1, :number) AS number
WHERE organization_id = :organization_id AND alert_id = :alert_id
""")


@reads_plans
@pytest.mark.parametrize("plans", [1, covering_alerts.MAX_PLANS + 5])
async def test_the_alerts_of_a_customer_are_read_without_those_of_other_plans(
    database: Database,
    database_url: str,
    organization_id: int,
    clock: ManualClock,
    copied: AlertDefinition,
    plans: int,
) -> None:
    """plans: of the customer and its subscriptions; one of them has an alert."""
    parameters = {"organization_id": organization_id, "alert_id": copied.alert_id, "number": ALERTS}
    async with database.transaction() as connection:
        await connection.execute(OF_PLANS, parameters)
        await connection.execute(text("UPDATE customer SET plan_id = 'gold' WHERE customer_id = 'acme'"))
        await connection.execute(
            text(
                "INSERT INTO subscription (organization_id, customer_id, subscription_id, plan_id, create_time,"
                " update_time, changed_epoch) SELECT :organization_id, 'acme', 's' || n, 'none' || n, now(), now(), 0"
                " FROM generate_series(2, :plans) AS n"
            ),
            {"organization_id": organization_id, "plans": plans},
        )
    await analyze(database_url, "alert")
    async with database.transaction() as connection:
        view = await CustomerView.open(connection, organization_id, "acme", clock.now())
        with recorded() as statements:
            page = await view.list_page((), after=None, limit=PAGE)
    assert [one.definition.scope.kind for one in page.alerts] == [ScopeKind.ALL_CUSTOMERS, ScopeKind.PLAN]
    assert sum(cost.rows for cost in statements.costs(database_url)) <= PAGE


@reads_plans
async def test_labels_of_another_organization_are_not_read(
    database: Database, database_url: str, organization_id: int, clock: ManualClock
) -> None:
    theirs = await create_alert(database, organization_id, clock)
    async with database.transaction() as connection:
        ours = await organizations.get_or_create(connection, "others", clock.now())
        await fill(connection, organization_id, theirs.alert_id, ALERTS)
    labelled = replace(NEW_ALERT, labels={"env": "prod"}, scope=Scope(ScopeKind.CUSTOMER, customer_id="few"))
    created = await create_alert(database, ours, clock, labelled)
    await analyze(database_url, "alert")
    async with database.transaction() as connection:
        with recorded() as statements:
            found = await lists.page(connection, ours, AlertFilter(labels={"env": "prod"}), after=None, limit=PAGE)
    assert [one.alert_id for one in found.items] == [created.alert_id]
    assert sum(cost.rows for cost in statements.costs(database_url)) <= 2
