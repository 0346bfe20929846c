"""Who visits the console: sessions, tokens of forms, headers, hosts."""
