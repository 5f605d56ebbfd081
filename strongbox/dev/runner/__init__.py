"""The process that stays and owns every other one: how it is started, asked and stopped, and what it does.
`dev.cli` and `dev.cluster` enter by `commands`; tests also by `runner_socket`.

Where to look:
    commands       up, down, status, without a command line around them
    detached       the runner of `up --detach`
    runner         starts, reaps, starts again, stops in order
    runner_socket  one runner for a folder, and what it is asked
"""
