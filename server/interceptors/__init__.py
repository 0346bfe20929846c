"""What happens around every call, one concern a module; `server.process` puts them in order."""
