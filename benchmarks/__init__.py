"""Benchmarks: how fast, and how exact, fastgrad is.

`cases` holds what is differentiated, `measure` times it and compares it with exact values, and
`reporting` has a function for each benchmark, which makes tables and pictures of what is measured.
``python -m benchmarks`` lists the benchmarks, and

    python -m benchmarks dense traced    runs two of them,
    python -m benchmarks all --smoke     runs each as small as can be, to see that it runs,
    python -m benchmarks report          measures all, and writes RESULTS.md and plots/.
"""
