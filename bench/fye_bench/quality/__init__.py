"""Quality of a bundle on drawn portraits whose true frames are known.

`suite` draws the cases, `run` makes and keeps clips, `judge` measures them (`images`, `texture`, `expression`,
`models`), `statistics` puts intervals around means, `report` says what was found. `command` is `fye bench quality`,
`cross` is `fye bench cross`, `front` is `fye bench forecast`, for which `lossless` judges and
`plot` draws.
"""
