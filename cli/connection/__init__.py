"""How the commands reach a server: the channel, the calls, and what a failed call means."""
