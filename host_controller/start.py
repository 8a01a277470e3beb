"""The command `dynmem`, before anything is imported that may be missing: Python 3.6 reads this file, too."""

import sys

OLDEST = (3, 11)
OURS = ("agent", "host_controller")


def main() -> int:
    """Run the command in sys.argv. Returns the exit status: 1 without the interpreter or a library."""
    if sys.version_info < OLDEST:
        have = sys.version_info[:2]
        return _give_up("dynmem needs Python {}.{} or newer; this is {}.{}.".format(*OLDEST, *have))
    try:
        from host_controller.cli import main as command

        command()
    except ModuleNotFoundError as missing:
        library = str(missing.name).partition(".")[0]
        if library in OURS:
            raise
        words = " ".join(["dynmem", *sys.argv[1:2]])
        needs = f"{words} needs the package python3-{library}"
        return _give_up(f"{needs}, which is not installed: install it, or dynmem anew.")
    except KeyboardInterrupt:  # while all that is imported
        return 130
    return 0


def _give_up(why: str) -> int:
    sys.stderr.write(why + "\n")
    return 1
