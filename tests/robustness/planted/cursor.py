"""A batch does not compare its producer's cursor: an attempt that arrives late counts as well."""

from typing import Any

from tests.robustness.planted.building import after_building


def _change(request: Any) -> None:
    del request.compare[:]


after_building(_change)
