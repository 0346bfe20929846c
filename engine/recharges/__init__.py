"""Recharges: the policies of balances that changed are evaluated in the transaction of the change."""
