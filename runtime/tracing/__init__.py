"""Traces: their context goes from a call to its webhooks; spans are recorded where the extra `tracing` is installed.

context  the W3C trace context: read, checked and written
current  the trace of the running code
"""
