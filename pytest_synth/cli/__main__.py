"""`python -m pytest_synth.cli`: the command, where it is not on the PATH."""

import sys

from pytest_synth.cli import main

sys.exit(main())
