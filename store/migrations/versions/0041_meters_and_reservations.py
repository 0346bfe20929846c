"""Meters, which count what enforced limits limit, and reservations, which hold a part of them.

New tables only: a server of the previous version does not use them. Meters are counted from the stored events when
they are first needed. Their rows change with each commit, so pages keep room for the next version of a row.
"""

from alembic import op

revision = "0041"
down_revision = "0040"
oldest_compatible = "0027"


def upgrade() -> None:
    """Creates the tables."""
    op.execute(
        """
        CREATE TABLE meter (
            organization_id bigint NOT NULL,
            customer_id text COLLATE "C" NOT NULL,
            meter_id uuid NOT NULL,
            counted numeric NOT NULL,
            held numeric NOT NULL,
            rules_epoch bigint NOT NULL,
            counted_from timestamptz,
            refused_time timestamptz,
            window_end timestamptz NOT NULL,
            subscription_id text COLLATE "C",
            unit text COLLATE "C" NOT NULL,
            group_values jsonb NOT NULL,
            window_kind text COLLATE "C" NOT NULL,
            window_minutes integer,
            window_start timestamptz,
            update_time timestamptz NOT NULL,
            PRIMARY KEY (organization_id, customer_id, meter_id)
        ) WITH (fillfactor = 60);
        CREATE INDEX meter_by_window_end ON meter (window_end);
        ALTER TABLE meter ALTER COLUMN organization_id SET (n_distinct = 100);
        CREATE TABLE meter_minute (
            organization_id bigint NOT NULL,
            customer_id text COLLATE "C" NOT NULL,
            meter_id uuid NOT NULL,
            minute timestamptz NOT NULL,
            counted numeric NOT NULL,
            PRIMARY KEY (organization_id, customer_id, meter_id, minute)
        ) WITH (fillfactor = 80);
        ALTER TABLE meter_minute ALTER COLUMN organization_id SET (n_distinct = 100);
        CREATE TABLE reservation (
            organization_id bigint NOT NULL,
            customer_id text COLLATE "C" NOT NULL,
            reservation_id text COLLATE "C" NOT NULL,
            state text COLLATE "C" NOT NULL,
            digest uuid NOT NULL,
            subscription_id text COLLATE "C",
            metric_id text COLLATE "C" NOT NULL,
            quantity numeric NOT NULL,
            cost numeric,
            currency text COLLATE "C",
            properties jsonb,
            overage_policy text COLLATE "C" NOT NULL,
            outcome text COLLATE "C" NOT NULL,
            granted_quantity numeric NOT NULL,
            granted_cost numeric,
            charges jsonb,
            draws jsonb,
            answer jsonb,
            event_time timestamptz NOT NULL,
            create_time timestamptz NOT NULL,
            expire_time timestamptz NOT NULL,
            end_time timestamptz,
            settled_quantity numeric,
            settled_cost numeric,
            late boolean NOT NULL DEFAULT false,
            settlement jsonb,
            PRIMARY KEY (organization_id, customer_id, reservation_id)
        ) WITH (fillfactor = 70);
        CREATE INDEX reservation_expiring ON reservation (expire_time) WHERE state = 'OPEN';
        CREATE INDEX reservation_ended ON reservation (end_time) WHERE state <> 'OPEN';
        ALTER TABLE reservation ALTER COLUMN organization_id SET (n_distinct = 100);
        """
    )
