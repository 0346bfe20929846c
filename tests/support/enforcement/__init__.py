"""Help for tests of enforcement."""
