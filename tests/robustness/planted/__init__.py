"""Bugs that the suite must catch, each a module that breaks one rule of the product when it is imported.

They are brought into the services of the cluster under attack from outside (tests/robustness/inside) when a
run is started with `--plant NAME`; test_planted.py runs each and wants it caught.
"""
