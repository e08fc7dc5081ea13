"""The names that annotations allow are those that the tables know."""

from inspect import signature
from typing import get_args

import pytest

import fastgrad
from fastgrad import schemes, typing
from fastgrad.engines import selection
from fastgrad.network import two_layer_net as of_net


def test_engines_are_those_of_the_tables():
    names = {"auto", *selection.GRADIENT_ENGINES, *selection.ENGINES}
    assert {*get_args(typing.GradientEngineName)} == names
    assert {*get_args(typing.EngineName)} == {"auto", *selection.ENGINES}
    assert {*get_args(typing.NetEngineName)} == {*of_net.ENGINES}


def test_schemes_are_those_of_the_table():
    assert {*get_args(typing.SchemeName)} == {*schemes.SCHEMES_BY_NAME}


@pytest.mark.parametrize("name", ["differentiate", "jacobian", "hessian", "hessian_vector_product"])
def test_all_derivatives_take_the_same_engines(name):
    assert signature(getattr(fastgrad, name)).parameters["engine"].annotation == typing.EngineName


def test_all_public_names_are_loaded_when_they_are_asked_for():
    assert {*fastgrad.__all__} <= {*fastgrad.LAZY} <= {*dir(fastgrad)}
    for name in fastgrad.LAZY:
        assert getattr(fastgrad, name).__name__.rpartition(".")[2] == name
    with pytest.raises(AttributeError, match="no attribute 'jacobi'"):
        fastgrad.jacobi  # noqa: B018
