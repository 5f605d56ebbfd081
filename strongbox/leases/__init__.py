"""Leases that more than one service writes."""
