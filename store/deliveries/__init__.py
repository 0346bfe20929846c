"""Deliveries: fan-out, the queue, results of attempts, redelivery."""
