"""The ledger of balances: its entries, and overages, as messages."""

from evaluator.amounts import format_decimal
from generated.tidemark.v1 import balance_entry_pb2, overage_pb2
from server.calls.validation import to_timestamp
from store.balances.entries import EntryType, StoredEntry
from store.balances.overages import Overage

_ENTRY_TYPES = {
    EntryType.GRANT: balance_entry_pb2.BALANCE_ENTRY_TYPE_GRANT,
    EntryType.ADJUSTMENT: balance_entry_pb2.BALANCE_ENTRY_TYPE_ADJUSTMENT,
    EntryType.VOID: balance_entry_pb2.BALANCE_ENTRY_TYPE_VOID,
    EntryType.DRAW: balance_entry_pb2.BALANCE_ENTRY_TYPE_DRAW,
    EntryType.GIVE_BACK: balance_entry_pb2.BALANCE_ENTRY_TYPE_GIVE_BACK,
    EntryType.USAGE_VOID: balance_entry_pb2.BALANCE_ENTRY_TYPE_USAGE_VOID,
}


def entry_message(entry: StoredEntry) -> balance_entry_pb2.BalanceEntry:
    """The message for an entry of the ledger."""
    change = entry.change
    return balance_entry_pb2.BalanceEntry(
        entry_number=entry.entry_number,
        customer_id=change.customer_id,
        balance_id=change.balance_id,
        segment_number=change.segment_number,
        type=_ENTRY_TYPES[change.entry_type],
        amount=format_decimal(change.amount),
        remaining=format_decimal(change.remaining),
        customer_remaining="" if change.customer_remaining is None else format_decimal(change.customer_remaining),
        custom_fields=change.custom_fields,
        adjustment_id=change.adjustment_id or "",
        create_time=to_timestamp(entry.create_time),
    )


def overage_message(customer_id: str, overage: Overage) -> overage_pb2.Overage:
    """The message for what usage took beyond a customer's balances."""
    shown = overage_pb2.Overage(
        customer_id=customer_id,
        amount=format_decimal(overage.amount),
        held=format_decimal(overage.held),
        update_time=to_timestamp(overage.update_time),
    )
    if overage.unit.currency is not None:
        shown.spend.currency = overage.unit.currency
    else:
        shown.quantity.metric_id = overage.unit.metric_id or ""
    return shown
