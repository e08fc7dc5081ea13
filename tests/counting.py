"""Functions whose calls are counted, and that may fail at one of them."""


def counted(f, fatal=0, error=None):
    """Return f with the number of its calls as an attribute; the fatal one of them fails."""

    def count(x):
        count.calls += 1
        if count.calls == fatal:
            raise error
        return f(x)

    count.calls = 0
    return count
