"""What migrations may do to distributed tables."""

import pytest

from tests.support.postgres.distributed_ddl import ddl_offences


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE gauge ADD COLUMN note text NOT NULL DEFAULT ''",
        "ALTER TABLE wallet ADD CONSTRAINT wallet_drawn CHECK (drawn >= 0) NOT VALID; ALTER TABLE wallet VALIDATE"
        " CONSTRAINT wallet_drawn",
        "CREATE INDEX CONCURRENTLY gauge_by_note ON gauge (note)",
        "CREATE UNIQUE INDEX gauge_note ON gauge (organization_id, customer_id, note)",
        "CREATE TRIGGER count_alerts AFTER INSERT ON alert FOR EACH STATEMENT EXECUTE FUNCTION f()",
        "ALTER TABLE audit_pending ADD COLUMN n bigint GENERATED ALWAYS AS IDENTITY",
        "CREATE TABLE new_table (customer_id text PRIMARY KEY)",
        "UPDATE customer SET display_name = '' WHERE display_name IS NULL",
    ],
)
def test_a_change_that_citus_carries_out_passes(statement: str) -> None:
    assert ddl_offences(statement) == []


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE gauge ADD COLUMN n bigint GENERATED ALWAYS AS IDENTITY",
        "ALTER TABLE gauge ADD COLUMN alert_id text REFERENCES alert",
        "ALTER TABLE gauge ADD CHECK (value > 0)",
        "ALTER TABLE gauge ALTER COLUMN value TYPE bigint",
        "ALTER TABLE gauge DROP COLUMN customer_id",
        "CREATE UNIQUE INDEX gauge_note ON gauge (organization_id, note)",
        "CREATE TRIGGER t AFTER INSERT ON gauge FOR EACH ROW EXECUTE FUNCTION f()",
        "UPDATE customer c SET plan_id = o.name FROM organization o WHERE o.organization_id = c.organization_id",
    ],
)
def test_a_change_that_citus_refuses_is_found(statement: str) -> None:
    assert len(ddl_offences(statement)) == 1
