"""`tidemark doctor` finds work that waits, endpoints that fail, and a server that does not answer."""

from cli.client.connection import Address
from cli.doctor.findings import Severity
from runtime.clock import ManualClock, SystemClock
from store.postgres.database import Database
from tests.support.cli.doctor import check, execute, until
from tests.support.notifier.house import House
from tests.support.server.running import running

OK, WARNING, PROBLEM = Severity.OK, Severity.WARNING, Severity.PROBLEM


async def test_a_stopped_notifier_leaves_an_old_outbox_and_old_deliveries(
    database: Database, database_url: str
) -> None:
    house = await House.build(database, SystemClock())
    assert (await check(database_url, "work.outbox")).severity is OK
    await house.notify(3)
    fresh = await check(database_url, "work.outbox")
    assert (fresh.severity, "3 notifications wait" in fresh.findings[0].found) == (OK, True)
    await execute(database_url, "UPDATE outbox SET create_time = now() - interval '1 hour'")
    old = await check(database_url, "work.outbox")
    assert old.severity is PROBLEM
    assert "tidemark notify" in old.findings[0].todo

    assert (await check(database_url, "work.deliveries")).severity is OK
    endpoint = (await house.endpoint("https://hooks.example.com/")).endpoint.endpoint_id
    await execute(
        database_url,
        "INSERT INTO delivery (organization_id, delivery_id, endpoint_id, notification_id, customer_id, event_type,"
        f" status, create_time, next_attempt_time) SELECT {house.organization_id}, 'd' || n, '{endpoint}', 'n' || n,"
        " 'c', 'alert.reached', 'PENDING', now(), now() - interval '5 minutes' FROM generate_series(1, 5) n",
    )
    due = await check(database_url, "work.deliveries")
    assert (due.severity, endpoint in due.findings[0].found) == (WARNING, True)
    await execute(
        database_url,
        "UPDATE delivery SET next_attempt_time = NULL, lease_token = gen_random_uuid(),"
        " lease_expire_time = now() - interval '1 hour' WHERE delivery_id = 'd1'",
    )
    assert (await check(database_url, "work.leases")).severity is PROBLEM


async def test_failing_and_disabled_endpoints_are_found_with_the_reason(
    database: Database, database_url: str
) -> None:
    house = await House.build(database, SystemClock())
    assert (await check(database_url, "endpoints.failing")).severity is OK
    failing = (await house.endpoint("https://hooks.example.com/")).endpoint.endpoint_id
    gone = (await house.endpoint("https://gone.example.com/")).endpoint.endpoint_id
    await execute(
        database_url,
        f"UPDATE endpoint SET failing_since = now() - interval '1 hour', failure_count = 7"
        f" WHERE endpoint_id = '{failing}'",
        f"UPDATE endpoint SET state = 'DISABLED', disable_reason = 'GONE' WHERE endpoint_id = '{gone}'",
        "INSERT INTO delivery (organization_id, delivery_id, endpoint_id, notification_id, customer_id, event_type,"
        f" status, create_time, next_attempt_time) VALUES ({house.organization_id}, 'd', '{failing}', 'n', 'c',"
        " 'alert.reached', 'PENDING', now(), now())",
        "INSERT INTO attempt (organization_id, delivery_id, attempt_number, start_time, duration, outcome, error)"
        f" VALUES ({house.organization_id}, 'd', 1, now(), interval '1 s', 'CONNECTION_FAILED', 'refused by host')",
    )
    found = await check(database_url, "endpoints.failing")
    assert found.severity is WARNING
    assert failing in found.findings[0].found
    assert "refused by host" in found.findings[0].found
    disabled = await check(database_url, "endpoints.disabled")
    assert (disabled.severity, gone in disabled.findings[0].todo) == (WARNING, True)


async def test_work_that_waits_for_servers_is_found(database: Database, database_url: str) -> None:
    org = (await House.build(database, SystemClock())).organization_id
    for check_id in (
        *("work.timers", "work.evaluations", "work.erasures", "work.redeliveries", "work.backfills"),
        *("work.reservations", "work.recharges", "work.recharge_policies"),
    ):
        assert (await check(database_url, check_id)).severity is OK
    await execute(
        database_url,
        f"INSERT INTO wallet (organization_id, customer_id, due_time) VALUES ({org}, 'c', now() - interval '1 hour')",
        # One is late, one is in its grace, and one has ended.
        *(
            "INSERT INTO reservation (organization_id, customer_id, reservation_id, state, digest, metric_id,"
            " quantity, overage_policy, outcome, granted_quantity, event_time, create_time, expire_time)"
            f" VALUES ({org}, 'c', '{name}', '{state}', gen_random_uuid(), 'm', 1, 'DEFAULT', 'ALLOWED', 1, now(),"
            f" now(), now() - interval '{age}')"
            for name, state, age in (
                ("late", "OPEN", "1 hour"),
                ("due", "OPEN", "1 second"),
                ("no", "RELEASED", "1 day"),
            )
        ),
        "INSERT INTO recharge_policy (organization_id, customer_id, balance_id, policy_id, below, fixed_amount,"
        " min_amount, cooldown, failure_cooldown, max_attempts, report_timeout, as_of_time, create_time, update_time,"
        f" state, failed_attempts, last_sequence) VALUES ({org}, 'c', 'b', 'p', 1, 1, 0, '0', '0', 1, '1 day', now(),"
        " now(), now(), 'DISABLED', 1, 1)",
        "INSERT INTO recharge (organization_id, customer_id, recharge_id, balance_id, policy_id, sequence, state,"
        f" attempt, unit, amount, remaining, create_time, expire_time) VALUES ({org}, 'c', 'r', 'b', 'p', 1,"
        " 'REQUESTED', 1, 'cost/USD', 1, 0, now() - interval '2 days', now())",
        "INSERT INTO customer_evaluation (organization_id, customer_id, facts, usage, subscriptions, limit_units,"
        f" epoch, change_time, due_time) VALUES ({org}, 'c', true, true, true, '{{}}', 1, now(),"
        " now() - interval '1 hour')",
        "INSERT INTO erasure_job (organization_id, job_id, customer_id, pseudonym, state, create_time)"
        f" VALUES ({org}, 'j', 'c', 'p', 'RUNNING', now() - interval '2 hours')",
        "INSERT INTO redelivery_job (organization_id, job_id, endpoint_id, kind, state, start_time, end_time,"
        f" statuses, create_time) VALUES ({org}, 'j', 'e', 'RECOVERY', 'RUNNING', now(), now(), '{{}}',"
        " now() - interval '2 hours')",
        "INSERT INTO alert (organization_id, alert_id, name, state, scope, condition_type, condition, thresholds,"
        " uniqueness_key_held, evaluate_on_create, version, changed_epoch, watching_epoch, watching_time,"
        f" visit_after, create_time, update_time) VALUES ({org}, 'a', 'n', 'ACTIVE', 'ALL_CUSTOMERS',"
        " 'usage_threshold_reached', '{}', '[]', false, true, 1, 1, 1, now(), '', now(), now() - interval '2 hours')",
        f"INSERT INTO feed_pending (organization_id, customer_id, notification_id) SELECT {org}, 'c', 'n' || n"
        " FROM generate_series(1, 6000) n",
    )
    for check_id, severity in (
        ("work.timers", PROBLEM),
        ("work.evaluations", PROBLEM),
        ("work.erasures", WARNING),
        ("work.redeliveries", WARNING),
        ("work.backfills", WARNING),
        ("work.reservations", PROBLEM),
        ("work.recharges", WARNING),
        ("work.recharge_policies", WARNING),
        ("work.feed", WARNING),
    ):
        assert (await check(database_url, check_id)).severity is severity, check_id


async def test_the_heartbeat_and_the_health_of_a_server_are_found(
    database: Database, database_url: str, clock: ManualClock
) -> None:
    unused = await check(database_url, "work.heartbeat")
    assert (unused.severity, unused.findings[0].todo) == (PROBLEM, "tidemark serve")
    assert (await check(database_url, "server.health", address=Address("127.0.0.1:1"))).severity is PROBLEM
    async with running(database, clock) as server:
        address = Address(f"127.0.0.1:{server.port}")
        assert (await check(database_url, "server.health", address=address)).severity is OK
        await until(database_url, "work.heartbeat", OK)
    await execute(database_url, "UPDATE heartbeat SET beat_time = now() - interval '1 hour'")
    assert (await check(database_url, "work.heartbeat")).severity is PROBLEM
