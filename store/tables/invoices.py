"""Invoices of customers."""

from sqlalchemy import Column, Table, Text
from sqlalchemy.dialects.postgresql import JSONB

from store.tables.base import Amount, Identifier, Organization, Time, metadata
from store.tables.placement import BY_CUSTOMER, lies

invoice = Table(
    "invoice",
    metadata,
    Column("organization_id", Organization, primary_key=True),
    Column("customer_id", Identifier, primary_key=True),
    Column("invoice_id", Identifier, primary_key=True),
    Column("display_name", Text, nullable=False, server_default=""),
    Column("invoice_type", Identifier),
    Column("status", Identifier, nullable=False),  # DRAFT, ISSUED, PAID, VOID
    Column("currency", Identifier, nullable=False),
    Column("total", Amount, nullable=False),  # after credits and commits
    Column("period_start_time", Time),
    Column("period_end_time", Time, nullable=False),
    Column("custom_fields", JSONB, nullable=False),
    Column("contract_custom_fields", JSONB, nullable=False),
    Column("as_of_time", Time, nullable=False),
    Column("create_time", Time, nullable=False),
    Column("update_time", Time, nullable=False),
    info=lies(BY_CUSTOMER),
)
