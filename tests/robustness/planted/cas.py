"""A write does not compare the secret's head: two writers make the same version, and `cas` is no promise."""

from strongbox.store import keyspace
from tests.robustness.planted.building import drop_compares

drop_compares(keyspace.KV_HEADS)
