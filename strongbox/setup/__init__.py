"""What runs before the services, one command each.

In Kubernetes they are init containers, and a CronJob.

    python -m strongbox.setup etcd-users     etcd's users and roles as the table says
    python -m strongbox.setup gateway        Envoy's configuration, from the image's own template and protos
    python -m strongbox.setup certificates   certificates as secrets, where there is no cert-manager

Each does nothing that is done already, exits 0 when all is as it should be, 1 with the reason on stderr, 2
for settings that make no sense.
"""
