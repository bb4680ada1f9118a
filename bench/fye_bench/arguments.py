"""Arguments of the benchmarks that are words of `fye`."""

import argparse
from typing import NoReturn

from fye_rt.errors import OptionError


class Parser(argparse.ArgumentParser):
    """A wrong argument is one line, as of every command of `fye`, and no usage block."""

    def error(self, message: str) -> NoReturn:
        """Raise OptionError."""
        raise OptionError(f"{message}; see: {self.prog} --help")
