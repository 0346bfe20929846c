"""The benchmarks, and the demo's and documentation's figures."""
