"""How fast, and how exact, is fastgrad? Run ``pytest benchmarks/`` or ``-m benchmarks.report``."""
