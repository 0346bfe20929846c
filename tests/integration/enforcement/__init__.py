"""Tests of store/accounts and store/balances, directly and through AccountService."""
