"""Certificates: whole gradients, compared with a few calls of f along random directions.

`certificate` certifies what the traced engine replays, and mends what is wrong: all elements are
compared at once along `directions`, and single ones where f bends. `compiled` does the same for
compiled functions, as often as their speed allows.
"""
