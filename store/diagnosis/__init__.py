"""What `tidemark doctor` reads of a database: statistics of PostgreSQL, and the first rows of indexes."""
