"""The model in plain torch: what trains, and what the published package has."""
