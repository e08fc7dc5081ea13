"""Compiled functions at several points at once: an add-on to the compiled engine.

`types` teaches numba a number that has a value in each lane of a vector, and arrays of it; `loop`
what can be computed with them, and it compiles f for such numbers and evaluates it at as many
points as there are lanes. Whatever fails here, be it an operation that is not known or a part of
numba that has changed, f is evaluated at single points by the compiled loop; the bits are the same.
"""
