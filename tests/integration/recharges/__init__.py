"""Tests of recharges: policies, requests, reports, timers, and what the notifications say."""
