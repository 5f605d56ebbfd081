"""The fence is not compared: a deposed holder's late transaction takes effect."""

from strongbox.store.duties.election import Term
from strongbox.store.etcd import txn

Term.compare = lambda _: txn.mod_is(b"/strongbox/none", 0)  # type: ignore[method-assign,assignment]
Term.require = lambda *_: None  # type: ignore[method-assign]
