"""The checks of preflight, which run before any costly work; one file for each."""
