"""The commands of the command line that call the API, in this process, against a real server."""
