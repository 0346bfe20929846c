"""How the commands reach a server: its address, their credentials, and the causes of failed calls."""
