"""The command line, `fye`: a module for each command."""
