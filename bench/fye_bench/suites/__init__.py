"""Suites: portraits, driving motions, and pairs of them. docs/development/suites.md describes the format.

`suite` reads, writes and checks a suite of `entries`, whose fields `manifest` defines. `collect` makes a suite of a
user's files, which `probe` inspects. `drawing` makes one of drawn characters, whose true frames `drawn` draws on
demand. `pairing` chooses the pairs and their order. `command` is `fye suite`.
"""
