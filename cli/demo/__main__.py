"""`python -m cli.demo` runs the demo."""

from cli.demo.command import demo
from cli.main import run

if __name__ == "__main__":
    run(demo, "demo")
