"""A request does not compare its token's record: memory decides, and a revoked token goes on working."""

from strongbox.store import keyspace
from tests.robustness.planted.building import drop_compares

drop_compares(keyspace.TOKENS)
