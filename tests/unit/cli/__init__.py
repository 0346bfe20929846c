"""The command line, without I/O beyond a file."""
