"""The contract's messages to the words of the domain, and back."""
