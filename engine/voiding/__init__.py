"""Voiding: counted events are taken back, from gauges and balances alike."""
