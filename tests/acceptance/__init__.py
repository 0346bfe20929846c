"""Ring 3: real processes, real signals, a foreign client."""
