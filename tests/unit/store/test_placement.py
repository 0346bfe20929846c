"""Where tables lie on a cluster: each says it, and Citus can do it."""

import pytest
from sqlalchemy import Column, ForeignKey, Index, MetaData, Table, Text

from store.tables import metadata
from store.tables.placement import (
    ANCHOR,
    BY_CUSTOMER,
    COORDINATOR,
    COORDINATOR_ALONE,
    EVERY_NODE,
    Placement,
    lies,
    placements,
)
from tests.support.postgres.placements import offences


def test_each_table_lies_where_it_can() -> None:
    assert offences(metadata) == []


def test_the_anchor_of_distributed_tables_comes_first() -> None:
    assert next(iter(placements())) == ANCHOR
    assert placements()[ANCHOR] is BY_CUSTOMER
    assert set(placements()) == set(metadata.tables)


# Nodes take the numbers of a distributed table's sequence from ranges apart, so they order nothing.
NUMBERS_THAT_ORDER_NOTHING = {
    "voided_event.void_number",  # only makes the key unique
    "balance_entry.entry_number",  # on a cluster `store.balances.entry_numbers` gives them
    "outbox.outbox_id",  # a fan-out takes rows in any order
    "feed_pending.arrival",  # on a cluster `store.notifications.cluster_placing` orders rows by `sequence`
}


def test_numbers_of_distributed_tables_order_nothing() -> None:
    numbered = {
        f"{table.name}.{column.name}"
        for table in metadata.sorted_tables
        for column in table.columns
        if column.identity is not None and placements()[table.name] is BY_CUSTOMER
    }
    assert numbered == NUMBERS_THAT_ORDER_NOTHING


def test_a_table_that_does_not_say_where_it_lies_is_found() -> None:
    tables = MetaData()
    Table("lost", tables, Column("customer_id", Text, primary_key=True))
    assert offences(tables) == ["lost does not say where it lies: add info=lies(…)"]


@pytest.mark.parametrize("placement", [BY_CUSTOMER, EVERY_NODE])
def test_a_distributed_table_whose_keys_lack_the_customer_is_found(placement: Placement) -> None:
    tables = MetaData()
    Table(
        "odd",
        tables,
        Column("name", Text, primary_key=True),
        Column("customer_id", Text),
        Column("key", Text, unique=True),
        Index("odd_once", "key", unique=True),
        info=lies(placement),
    )
    lacks = "odd is distributed, and {} lacks customer_id"
    found = [lacks.format(key) for key in ("the key (name)", "the key (key)", "the index odd_once")]
    assert sorted(offences(tables)) == (sorted(found) if placement is BY_CUSTOMER else [])


@pytest.mark.parametrize("placement", [EVERY_NODE, COORDINATOR])
def test_a_partitioned_table_in_the_metadata_is_found(placement: Placement) -> None:
    tables = MetaData()
    Table(
        "parts",
        tables,
        Column("day", Text, primary_key=True),
        postgresql_partition_by="RANGE (day)",
        info=lies(placement),
    )
    assert len(offences(tables)) == 1


@pytest.mark.parametrize(
    ("of", "to", "is_possible"),
    [
        (BY_CUSTOMER, BY_CUSTOMER, True),
        (BY_CUSTOMER, EVERY_NODE, True),
        (BY_CUSTOMER, COORDINATOR, False),
        (EVERY_NODE, BY_CUSTOMER, False),
        (COORDINATOR, COORDINATOR, True),
        (COORDINATOR, BY_CUSTOMER, False),
        (COORDINATOR, COORDINATOR_ALONE, False),
        (COORDINATOR_ALONE, COORDINATOR, False),
        (COORDINATOR_ALONE, COORDINATOR_ALONE, True),
    ],
)
def test_a_foreign_key_that_cannot_exist_is_found(of: Placement, to: Placement, is_possible: bool) -> None:
    tables = MetaData()
    Table("target", tables, Column("customer_id", Text, primary_key=True), info=lies(to))
    Table(
        "source",
        tables,
        Column("customer_id", Text, ForeignKey("target.customer_id"), primary_key=True),
        info=lies(of),
    )
    apart = "source lies apart from target, to which its foreign key goes"
    assert offences(tables) == ([] if is_possible else [apart])
