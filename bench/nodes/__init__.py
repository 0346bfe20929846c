"""The part `nodes`: what an event costs on each node of a database, on one PostgreSQL and on a cluster of Citus."""
