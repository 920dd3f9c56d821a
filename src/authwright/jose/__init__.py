"""Keys, signed envelopes and claims (RFC 7515, 7517, 7518, 7519, 8037, 8725, 9068). No I/O, no clock.

Shared by server and guard. What only the server may do, signing, is in `jose.sign`, which the guard cannot import.
"""
