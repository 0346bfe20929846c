"""All checks, in their order. A new subject gets a module with its own CHECKS, and a line here."""

from cli.doctor import (
    activity_checks,
    cluster_checks,
    cluster_node_checks,
    database_checks,
    identity_checks,
    quota_checks,
    server_checks,
    storage_checks,
    webhook_checks,
    work_checks,
)
from cli.doctor.findings import Check

CHECKS: tuple[Check, ...] = (
    *database_checks.CHECKS,
    *cluster_checks.CHECKS,
    *cluster_node_checks.CHECKS,
    *activity_checks.CHECKS,
    *storage_checks.CHECKS,
    *work_checks.CHECKS,
    *webhook_checks.CHECKS,
    *identity_checks.CHECKS,
    *quota_checks.CHECKS,
    *server_checks.CHECKS,
)

# Found before any check: without a connection there is nothing to check.
CONNECTION = "database.connection"
