"""Proofs and signed checkpoints.

Where to look:
    prove                 proofs, verified before they are given
    checkpoint_publisher  signing, and putting the newest into etcd
"""
