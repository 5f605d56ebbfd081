"""Credentials.

Where to look:
    issue  intent, role in PostgreSQL, ACTIVE, the password leaves once
"""
