"""The cases of other packages are right, or refused with a remedy."""

import pytest

from peers import LACKING, cases_of, judged, peers


@pytest.mark.parametrize("peer", peers())
def test_no_case_of_another_package_is_wrong(peer, request):
    slow = request.config.getoption("--slow")
    cases = [case for case in cases_of(peers()[peer]) if slow or not case.slow]
    verdicts = [(case.name, *judged(case)) for case in cases]
    assert verdicts
    assert not [each for each in verdicts if each[1] == "wrong"]


def test_what_is_lacking_is_named():
    cases = [case for module in peers().values() for case in cases_of(module)]
    assert {case.lacking for case in cases} - {None} <= LACKING.keys()
