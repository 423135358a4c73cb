"""Makes `python -m simulator.cli` the command `fedscape`."""

import sys

from simulator.cli.entry import main

if __name__ == "__main__":
    sys.exit(main())
