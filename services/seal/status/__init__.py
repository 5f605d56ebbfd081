"""The status of this node and of the cluster.

Where to look:
    health           health and seal status
    readiness        whether the next pod may be taken away
    shared_overview  one read of etcd for all who ask
    duty_status      whether duties make progress
    late_duty_alarm  late duties in log and metrics
"""
