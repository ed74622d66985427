"""What people see of nd.pp, nd.tl, nd.pl and nd.get."""

import pytest

import normalisr_dask as nd

FUNCTIONS = {
    "pp": ["lcpm", "normalise", "qc"],
    "tl": ["coex", "de", "vooma_lm_fit"],
    "pl": ["degree", "qq", "trend", "variance_fit", "volcano"],
    "get": ["de_df"],
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_tab_key_shows_what_is_meant_for_users(name: str) -> None:
    module = getattr(nd, name)
    assert dir(module) == FUNCTIONS[name]
    assert all(callable(getattr(module, function)) for function in dir(module))
