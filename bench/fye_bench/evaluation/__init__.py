"""Evaluation of a bundle on a suite of portraits and motions: runs, their pages, and comparisons of runs.

`metrics` says what is measured; `clips` keeps made frames. `saved` reads a run that was kept, `cost` says what it took.
`compare` sets two runs against each other, `acceptance` judges whether one may replace the other, `ranking` finds the
worst pairs. `report`, `comparison` and `overview` write pages, whose templates are in `page/`, by `rendering`, `plots`
and `pictures`. `compare_command` is `fye eval compare` and `fye eval report`.
"""
