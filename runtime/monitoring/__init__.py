"""The monitoring of a process: its metrics, and the HTTP port that shows them together with its health.

instruments    the metrics of one process: histograms, and values that are read at each scrape
exposition     the metrics as text, made in slices
process        CPU, memory, open files, garbage collection, and the delay of the event loop
busiest        a bounded number of organizations, those with the most load
addresses      where the port listens
port           the HTTP port: /healthz, /readyz, /metrics
http           its server
combined       the port of a parent, which shows the metrics of its child processes
merging        scrapes of several processes as one
"""
