"""The same events and alerts in what a team would write or take instead of Tidemark.

Each peer is a module that runs as a script in an environment of its own. `task` and `script` are what all scripts
share. The other modules run in the benchmark's process: `definitions` lists the peers, `stores` starts what they
count in, `measuring` measures one of them, `report` has the results.
"""
