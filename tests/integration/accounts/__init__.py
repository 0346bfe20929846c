"""What customers hold and owe: the facts that AccountService keeps."""
