"""The command `tidemark console`, and the console as a child of `up` and `serve`."""
