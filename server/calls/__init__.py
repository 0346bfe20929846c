"""What handlers of every service use: the current call, validation, errors, pages, tokens, limits of a call."""
