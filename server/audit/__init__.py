"""AuditService: the audit log, as entries, lists and streams."""
