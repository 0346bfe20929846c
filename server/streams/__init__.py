"""What streams of several services share."""
