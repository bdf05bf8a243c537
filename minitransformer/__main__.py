"""`python -m minitransformer` is the `minitransformer` command."""

import sys

from minitransformer.cli import main

if __name__ == "__main__":
    sys.exit(main())
