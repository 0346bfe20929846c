"""The watch stream: what is read of each feed once for all of its watchers, and the tokens that resume it."""
