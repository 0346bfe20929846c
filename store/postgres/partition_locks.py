"""The advisory locks of those who create and drop partitions.

Two replicas can do it at the same time, and even CREATE TABLE IF NOT EXISTS would then fail in the catalogue.
"""

MONTHS_OF_EVENTS = 1_052_911_830_412
MONTHS_OF_AUDIT = 1_052_911_830_413
DAYS_OF_DELIVERIES = 1_052_911_830_415

PARTITION_LOCKS = (MONTHS_OF_EVENTS, MONTHS_OF_AUDIT, DAYS_OF_DELIVERIES)
