"""Suites: portraits, driving motions, and which drives which; docs/development/suites.md is their format.

`suite` reads, writes and checks one, whose `entries` are parsed field by field as `manifest` has them. `collect` makes
one of a user's files, which `probe` has looked at, `drawing` one of drawn characters, whose true frames `drawn` draws
when they are asked for; `pairing` decides who is paired with what, and in which order. `command` is `fye suite`.
"""
