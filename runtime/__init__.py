"""What every process has: the clock, the configuration and structured logs."""
