"""Tests of alerts, without usage: AlertService over a real channel, and store/alerts."""
