"""The log on disk: segments, archived ones, and what is done when something is damaged.
Formats and checks are those of strongbox.audit_log.

Where to look:
    segments        the files of one folder
    query           entries by filter, in pages
    archiving       whole segments moved away
    repair          what the keys do not prove is set aside
    find_beginning  where a log begins whose marker is damaged
"""
