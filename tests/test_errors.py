import math

import pytest

from dpzo.errors import Refusal, not_negative, positive


@pytest.mark.parametrize("check", [positive, not_negative])
def test_what_to_do_fits_what_came(check):
    """Kills: "Choose a value above zero" for infinity."""
    with pytest.raises(Refusal, match=r"got inf\. Choose a finite value"):
        check("x", math.inf)
    for bad in (-1.0, -math.inf, math.nan, "1", None, True):
        with pytest.raises(Refusal) as caught:
            check("x", bad)
        assert "finite value" not in caught.value.todo
