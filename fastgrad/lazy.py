"""What waits until it is first asked for: computed attributes, and modules that load numba."""

from collections.abc import Callable
from importlib import import_module
from typing import Any, Generic, TypeVar

Value = TypeVar("Value")


class lazy(Generic[Value]):
    """Decorate a method that computes an attribute, always the same.

    As `functools.cached_property`, which before Python 3.12 holds a lock meanwhile, one for all
    instances: in a process that is forked at that moment, nobody would ever release it.
    """

    def __init__(self, compute: Callable[[Any], Value]) -> None:
        self.compute = compute
        self.__doc__ = compute.__doc__

    def __get__(self, instance: Any, owner: type) -> Value:
        """Compute the attribute; the instance's own comes first from now on."""
        if instance is None:
            return self  # type: ignore[return-value]  # of a class, as properties do
        value = vars(instance)[self.compute.__name__] = self.compute(instance)
        return value


class LazyModule:
    """A module that is loaded when one of its attributes is first asked for.

    Parameters
    ----------
    name : str
        As it is imported.
    """

    def __init__(self, name: str) -> None:
        self.__name__ = name

    def __getattr__(self, attribute: str) -> Any:
        module = import_module(self.__name__)
        self.__dict__ = module.__dict__  # so that its attributes are found without this function
        return getattr(module, attribute)
