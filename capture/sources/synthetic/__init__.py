"""A simulated camera: scene, sensor, pictures."""
