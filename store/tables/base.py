"""What every table shares: the metadata, and the column types with one meaning each."""

from sqlalchemy import BigInteger, DateTime, MetaData, Numeric, Text

metadata = MetaData()

# Ids are compared byte by byte: collation C sorts them as Python sorts their UTF-8 bytes, which the lock order
# of the hot path relies on, and costs less than a language's rules.
Identifier = Text(collation="C")
Organization = BigInteger
Time = DateTime(timezone=True)
Amount = Numeric
