"""The command dynmem-agent. `run` must not pay for click, so it is told apart before anything is imported."""

import sys


def main() -> int:
    """Run the command in sys.argv. Returns the exit status."""
    if sys.argv[1:2] == ["run"] and "--help" not in sys.argv:
        from agent.daemon import main as run

        return run(sys.argv[2:])
    from agent.commands import main as command

    return command(sys.argv[1:])
