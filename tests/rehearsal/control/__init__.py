"""The stand-in for the control plane: an API server that kubectl takes for one, and its controllers."""
