"""A replica that restarts while others hold the root key gets it from one of them.

Where to look:
    requester  the side that asks
    responder  the side that gives
"""
