"""What every process uses, and what knows nothing of Tidemark's domain.

actions               the values of the field `action` of log lines
backoff               pauses between the tries of one thing
clock                 the source of the current time
configuration         the settings, read from environment variables
fair_semaphore        something limited that organizations share, such as connections
http_connections      the connections of an HTTP port: how many, and how long each may take
http_faults           what an HTTP port answers without its handlers
http_listening        the sockets of an HTTP port, and their handshakes of TLS
kubernetes_variables  environment variables that Kubernetes sets, and that are not settings
log_fields            the fields of log lines that belong to a call or a delivery
logs                  structured logs
redaction             exceptions as text without values of the database
signals               the signals that stop a process
tasks                 background tasks
trace_export          the export of traces, switched on by the environment
tracing               traces, from a call to its webhooks
turns                 long work on the event loop, divided into slices
"""
