"""The manifests, run without a Kubernetes cluster: `python -m tests.rehearsal` (README.md: what is real)."""
