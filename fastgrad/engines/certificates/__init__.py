"""Certificates: whole gradients, compared with a few calls of f along random directions.

`traced` certifies what the traced engine replays, and mends what is wrong: `directions` compares
all elements at once, `faults` finds those that disagree by bisection, `elements` compares single
ones where f bends, and `evaluations` calls f. `compiled` does the same for compiled functions, as
often as their speed allows.
"""
