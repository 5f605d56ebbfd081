"""The stand-in for a node: networks and names, images and volumes, containers and their probes."""
