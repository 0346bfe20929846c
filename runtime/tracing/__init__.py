"""Traces: their context goes from a call to its webhooks; spans are recorded where the extra `tracing` is installed.

context   the W3C trace context: read, checked and written
current   the trace of the running code
spans     spans as the product begins and ends them; they record nothing while tracing is off
recorder  spans recorded by the SDK of OpenTelemetry: the only module that needs the extra
"""
