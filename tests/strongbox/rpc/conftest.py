"""Certificates for real mutual TLS, made once."""

from __future__ import annotations

import pytest

from tests.support.certs import Identities


@pytest.fixture(scope="session")
def identities(tmp_path_factory: pytest.TempPathFactory) -> Identities:
    """Everybody's certificates of one authority."""
    return Identities(tmp_path_factory.mktemp("certificates"))
