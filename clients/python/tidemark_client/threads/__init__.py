"""Writers and watchers for programs with threads: an event loop in the background runs those of asyncio."""
