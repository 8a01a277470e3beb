"""The command dynmem-agent. `run` must not pay for click: it is told apart before anything is imported."""

import sys

OLDEST = (3, 9)


def main() -> int:
    """Run the command in sys.argv. Returns the exit status: 1 without the interpreter or a library."""
    if sys.version_info < OLDEST:
        have, want = sys.version_info[:2], OLDEST
        return _give_up("dynmem-agent needs Python {}.{} or newer; this is {}.{}.".format(*want, *have))
    if sys.argv[1:] == ["restore"]:
        from agent.overcommit import main as restore

        return restore()
    if sys.argv[1:2] == ["run"] and "--help" not in sys.argv:
        from agent.daemon import main as run

        return run(sys.argv[2:])
    from agent.said import exit_status

    return exit_status("dynmem-agent", _command)


def _command() -> int:
    if sys.argv[1:2] in (["install"], ["remove"]) and "--help" not in sys.argv:
        from agent.installation import main as setup

        return setup(sys.argv[1:])
    try:
        from agent.commands import main as command
    except ModuleNotFoundError as missing:
        words = " ".join(["dynmem-agent", *sys.argv[1:2]])
        return _give_up(
            "{} needs the package python3-{}, which is not installed. `dynmem-agent run` needs none.".format(
                words, str(missing.name).partition(".")[0]
            )
        )
    return command(sys.argv[1:])


def _give_up(text: str) -> int:
    sys.stderr.write(text + "\n")
    return 1
