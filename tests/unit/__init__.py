"""Ring 1: pure logic, no I/O."""
