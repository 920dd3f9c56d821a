"""The rules: what is true, whatever database or request it is asked about.

Standard library only (but `passwords` and `names`), no I/O and no clock: `now` is an argument, an `Instant` in
microseconds since 1970 UTC.
"""
