"""A cell may take minutes at the small size, and as long as it takes at the others."""

import os
from typing import Any


def _wait(app: Any, config: Any) -> None:
    if os.environ.get("DPZO_BOOK_SIZE", "small") != "small":
        config.nb_execution_timeout = -1  # none


def setup(app: Any) -> dict[str, Any]:
    """Come before myst-nb reads its settings."""
    app.connect("config-inited", _wait)
    return {"version": "1", "parallel_read_safe": True}
