"""The ten scenarios of the acceptance list, two checks each, against a real three-node cluster."""
