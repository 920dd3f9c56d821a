"""Figures, each a ratio or a bound, measured on this machine beside a peer or the bare limit: `make bench`."""
