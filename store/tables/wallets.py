"""The row by which a customer's balances and invoices are locked."""

from sqlalchemy import Column, Table

from store.tables.base import Identifier, Organization, metadata

wallet = Table(
    "wallet",
    metadata,
    Column("organization_id", Organization, primary_key=True),
    Column("customer_id", Identifier, primary_key=True),
)
