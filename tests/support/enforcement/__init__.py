"""Support for the tests of enforcement."""
