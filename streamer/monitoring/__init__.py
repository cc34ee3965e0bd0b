"""The state of the service for people and programs: health, metrics, load, viewers, events."""
