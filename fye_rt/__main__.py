"""Runs the command line as `python -m fye_rt`, without an installation."""

import sys

from fye_rt.cli.main import main

sys.exit(main())
