"""What monitoring shows of the database: the pools of a process, and the work that waits in the tables."""
