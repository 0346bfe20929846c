"""The AlertService: alerts, usage, notifications."""
