"""Requests, frames and bytes that no client sends, and what a server must do with them."""
