"""Workers: the loop's calls of f, shared by processes of this machine or by a map-like callable.

f and x come in, with the points to which elements of x are moved; f's values there come out, in
order, with the same bits for any number of workers. The files, in the order of their use:

- `scheduler.py` divides the points into chunks, sends them out, and collects the values.
- `messages.py` has what is sent once, a `SharedFunction`, which checks in each worker that its copy
  of f has the values that f has here; and what is sent for each chunk and comes back.
- `processes.py` starts processes, by loky, keeps them for the next call, and ends them.

Examples
--------
>>> import numpy as np
>>> from fastgrad import numerical_gradient
>>> numerical_gradient(lambda x: (x**2).sum(), np.arange(3.0), engine="loop", workers=map).round(6)
array([0., 2., 4.])
"""
