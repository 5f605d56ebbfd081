"""Fixtures of the fault tests."""

from tests.support.postgres import postgres

__all__ = ["postgres"]
