"""What the statements of the delivery queue share: their settings, and SQL about the endpoints that have work.

`claims` takes deliveries that are due, `pending_work` asks what waits, `results` and `leases` end a claim. All due
times are times of PostgreSQL's clock.
"""

BURST_SECONDS = 1  # seconds of its rate: so many deliveries an endpoint may get together

# The settings of every transaction of the queue, results included.
#
# synchronous_commit: commits do not wait for the disk, which would cost each notification two flushes. A crash of the
# database server can lose the last transactions of the queue, each as a whole. That only repeats work: outbox rows
# are fanned out again, deliveries are attempted again under the same ids. A lost result also brings its lease back;
# `leases.release_orphaned` ends that lease.
#
# idle_in_transaction_session_timeout: a notifier that is paused in the middle of a transaction loses the transaction,
# and with it the locks that other notifiers wait for.
#
# enable_*: every row is reached by an index. The tables swing between empty and full, so their statistics are always
# late; a plan that was made while they were small would read all deliveries ever made, for each claim. For the same
# reason rows are found one by one in a lateral query whose order only the right index has, and are then named by
# their ctid, which does not change while the endpoint is locked. Joined by their keys, a table that seemed empty
# would be read once for each of them.
#
# jit: until PostgreSQL 17 a plan that cannot do without a sort costs 10^10 when sorts are off. PostgreSQL would
# compile it to machine code each time, where it is built with that: a second or two for a claim of 20 ms.
SETTINGS = """
SELECT set_config('synchronous_commit', 'off', true), set_config('enable_seqscan', 'off', true),
       set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true),
       set_config('enable_sort', 'off', true), set_config('enable_incremental_sort', 'off', true),
       set_config('jit', 'off', true), set_config('idle_in_transaction_session_timeout', '10s', true)
"""

# The first waiting delivery of each endpoint, found by steps through the index of waiting rows from one endpoint to
# the next. The cost depends on the number of endpoints that have work, not on how many deliveries wait.
_FIRST_WAITING = """
    first_waiting AS (
        (
            SELECT organization_id, endpoint_id, next_attempt_time
            FROM delivery_live
            WHERE next_attempt_time IS NOT NULL
            ORDER BY organization_id, endpoint_id, next_attempt_time
            LIMIT 1
        )
        UNION ALL
        SELECT following.*
        FROM first_waiting
        CROSS JOIN LATERAL (
            SELECT organization_id, endpoint_id, next_attempt_time
            FROM delivery_live
            WHERE next_attempt_time IS NOT NULL
              AND (organization_id, endpoint_id) > (first_waiting.organization_id, first_waiting.endpoint_id)
            ORDER BY organization_id, endpoint_id, next_attempt_time
            LIMIT 1
        ) AS following
    )
"""

# The endpoints with a delivery that is due, as common table expressions of a recursive query.
DUE_ENDPOINTS = f"""
    {_FIRST_WAITING}, due_endpoint AS MATERIALIZED (
        SELECT organization_id, endpoint_id FROM first_waiting WHERE next_attempt_time <= now()
    )
"""

# How many more deliveries an endpoint may have in flight. While its breaker is not closed that is one, the probe.
ROOM = """
    (CASE WHEN endpoint.breaker_state = 'CLOSED'
          THEN least(endpoint.max_in_flight, endpoint.breaker_window) ELSE 1 END - endpoint.in_flight)
"""

# The tokens in the bucket of an endpoint's rate now; null without a rate, which every comparison lets pass. The
# bucket holds at least one token, or a rate below one a second would never send anything.
TOKENS = f"""
    least(CASE WHEN endpoint.rate_per_second * {BURST_SECONDS} < 1 THEN 1
               ELSE endpoint.rate_per_second * {BURST_SECONDS} END,
          endpoint.tokens
              + endpoint.rate_per_second * greatest(extract(epoch FROM now() - endpoint.token_time), 0))
"""

# Whether an endpoint may get deliveries now.
OPEN = f"""
    endpoint.state = 'ENABLED'
    AND {ROOM} > 0
    AND coalesce(endpoint.not_before <= now(), true)
    AND (endpoint.breaker_state <> 'OPEN' OR endpoint.breaker_until <= now())
    AND (endpoint.rate_per_second IS NULL OR {TOKENS} >= 1)
"""
