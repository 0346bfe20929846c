"""The rules of Citus for where a table can lie, as offences of a table against them."""

from collections.abc import Iterator

from sqlalchemy import ForeignKeyConstraint, MetaData, PrimaryKeyConstraint, Table, UniqueConstraint

from store.tables.placement import DISTRIBUTION_COLUMN, Placement, distributed_key_of, placement_of

# From where a foreign key can go to a table EVERY_NODE, and to one COORDINATOR.
_TO_EVERY_NODE = {Placement.BY_CUSTOMER, Placement.EVERY_NODE, Placement.COORDINATOR}
_TO_COORDINATOR = {Placement.EVERY_NODE, Placement.COORDINATOR}


def offences(metadata: MetaData) -> list[str]:
    """What Citus or the rules of placement refuse of these tables, one line each."""
    return [offence for table in metadata.sorted_tables for offence in _offences(table)]


def _offences(table: Table) -> Iterator[str]:
    placement = placement_of(table)
    if placement is None:
        yield f"{table.name} does not say where it lies: add info=lies(…)"
        return
    if placement is Placement.BY_CUSTOMER:
        for name, columns in _unique(table):
            if DISTRIBUTION_COLUMN not in columns:
                yield f"{table.name} is distributed, and {name} lacks {DISTRIBUTION_COLUMN}"
    if placement in (Placement.EVERY_NODE, Placement.COORDINATOR) and table.dialect_options["postgresql"].get(
        "partition_by"
    ):
        yield f"{table.name} is partitioned, and can be neither on every node nor in the metadata of Citus"
    for constraint in table.constraints:
        if isinstance(constraint, ForeignKeyConstraint) and not _is_possible(table, placement, constraint):
            yield f"{table.name} lies apart from {constraint.referred_table.name}, to which its foreign key goes"


def _unique(table: Table) -> Iterator[tuple[str, set[str]]]:
    """The unique keys of a distributed table."""
    own_key = distributed_key_of(table)
    for constraint in table.constraints:
        if isinstance(constraint, PrimaryKeyConstraint | UniqueConstraint) and len(constraint.columns):
            replaced = own_key and isinstance(constraint, PrimaryKeyConstraint)
            columns = own_key if replaced else tuple(constraint.columns.keys())
            yield f"the key ({', '.join(columns)})", set(columns)
    for index in table.indexes:
        if index.unique:
            yield f"the index {index.name}", set(index.columns.keys())


def _is_possible(table: Table, placement: Placement, constraint: ForeignKeyConstraint) -> bool:
    target = placement_of(constraint.referred_table)
    if target is Placement.BY_CUSTOMER:
        names = {element.parent.name for element in constraint.elements}
        return placement is Placement.BY_CUSTOMER and DISTRIBUTION_COLUMN in names
    if target is Placement.EVERY_NODE:
        return placement in _TO_EVERY_NODE
    if target is Placement.COORDINATOR:
        return placement in _TO_COORDINATOR
    return placement is target
