"""Evaluation of a bundle on a suite of portraits and motions: runs, their pages, and comparisons of runs.

`run` evaluates the pairs of a suite with the workers of `evaluator`; `clips` stores their frames. `saved` reads a run,
`cost` sums up its times and memory. `compare` compares two runs, `acceptance` judges whether one may replace the other,
`ranking` finds the worst pairs. `report`, `comparison` and `overview` write pages from the templates in `page/`, with
`rendering`, `plots` and `pictures`. `compare_command` is `fye eval compare` and `fye eval report`.
"""
