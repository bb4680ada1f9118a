"""`python -m fye_rt`: the command line without an installation."""

import sys

from fye_rt.cli.main import main

sys.exit(main())
