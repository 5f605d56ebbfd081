"""A watch that was interrupted goes on one revision too late."""

import inspect

from strongbox.store.etcd import watch

_source = inspect.getsource(watch.watch)
_right = "await _create(stream, key, end, position)"
assert _right in _source, "the watch is written otherwise now"
_wrong = "await _create(stream, key, end, position + (position != start_revision))"
exec(_source.replace(_right, _wrong), watch.__dict__)
