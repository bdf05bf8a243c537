"""`python -m minitransformer` is the `minitransformer` command."""

from __future__ import annotations

import signal
import sys


def main() -> int:
    """Run the command line; its exit status. Until all is imported, Ctrl-C ends the process without a traceback."""
    asked = signal.signal(signal.SIGINT, signal.SIG_DFL)
    from minitransformer.cli import main as run

    signal.signal(signal.SIGINT, asked)
    return run()


if __name__ == "__main__":
    sys.exit(main())
