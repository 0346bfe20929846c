"""AlertService over a real channel, but for its hot path, and the statements behind it."""
