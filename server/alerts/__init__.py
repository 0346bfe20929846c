"""The handlers of AlertService: alerts, customers' states, usage, notifications."""
