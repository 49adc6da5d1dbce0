"""Comparing methods fairly: tuned alike, at equal epochs and equal compute, with statistics.

A study is a set of cells, each an ordinary `nasaug train` in a folder of its own. Everything is
derived from what those folders hold: which rates to try next, how long the longer baselines train,
the tables. So a study that is killed goes on, and one that is unfinished can be reported on.
"""
