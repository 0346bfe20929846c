"""`python -m demo`."""

from cli.main import run
from demo.command import demo

if __name__ == "__main__":
    run(demo, "demo")
