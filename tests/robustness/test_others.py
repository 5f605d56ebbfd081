"""What honest clients saw is told as it was: figures, and who was not served."""

from __future__ import annotations

from tests.robustness import others
from tests.robustness.others import Window


def _window(kind: str = "lists", requests: int = 100) -> Window:
    window = Window(kind, attacks={"200": 50})
    for number in range(requests):
        window.saw(number / 1000, 1, "")
    return window


def test_a_request_that_failed_twice_is_a_violation() -> None:
    window = _window()
    assert list(others.violations(window)) == []
    window.saw(2.0, 2, "GET /v1/secrets/x: 503 OVERLOADED")
    (found,) = others.violations(window)
    assert found.startswith("others: while one caller sends lists, GET /v1/secrets/x: 503")


def test_a_window_in_which_little_was_asked_proves_nothing() -> None:
    assert len(list(others.violations(_window(requests=3)))) == 1
    idle = _window()
    idle.attacks = {}
    assert len(list(others.violations(idle))) == 1
    alone = _window(others.ALONE)
    alone.attacks = {}
    assert list(others.violations(alone)) == []


def test_quantiles_are_of_what_was_seen() -> None:
    window = _window()
    assert (window.quantile(0.5), window.quantile(0.99)) == (50, 99)
    assert Window("lists").quantile(0.5) == 0
