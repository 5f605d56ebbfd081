"""From an empty cluster to a first secret, and what is promised for after that: a function for each step.

Each takes the scene, returns a remark or None, and raises when something is not as it is documented. `plan`
says which are done, and in which order.
"""
