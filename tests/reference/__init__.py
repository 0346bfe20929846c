"""The reference model: a plain model of the domain, which tests and the demo compare the product with.

It shares no code with the product and imports only the standard library. Amounts are exact fractions.
"""
