"""The public client: StrongBox over gRPC, through a gateway.

    from strongbox.client import StrongBox

    with StrongBox("http://127.0.0.1:8201", token=token) as box:
        box.kv.put("app/db", "s3cr3t")
        print(box.kv.get("app/db").value)

Every call has a deadline and raises a class of strongbox.errors, the one that the service raised. Paths and
names are checked before anything is sent. A StrongBox may be used by many threads.
"""

from strongbox.client.client import StrongBox
from strongbox.client.kv import Secret

__all__ = ["Secret", "StrongBox"]
