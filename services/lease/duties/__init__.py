"""What one lease replica does for all, under a fence.

Where to look:
    reaper            ends what is due
    reaper_decisions  what is due; functions of a view
    reconciler        compares PostgreSQL with what is known
"""
