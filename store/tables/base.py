"""What all tables share: the metadata, and column types with one meaning each."""

from sqlalchemy import BigInteger, DateTime, MetaData, Numeric, Text

metadata = MetaData()

# Collation C compares ids byte by byte, as Python compares their UTF-8 bytes. The lock order of the hot path depends
# on this, and it is faster than the rules of a language.
Identifier = Text(collation="C")
Organization = BigInteger
Time = DateTime(timezone=True)
Amount = Numeric
