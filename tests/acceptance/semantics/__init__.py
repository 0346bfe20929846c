"""What each of the 23 conditions means, in one table, through gRPC and the notifier."""
