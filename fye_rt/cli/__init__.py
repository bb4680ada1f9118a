"""The command line, `fye`: one module per command, and one for the short commands."""
