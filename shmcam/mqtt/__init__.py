"""The optional process mqtt: the cameras at an MQTT broker, for Home Assistant, other programs, and a fleet."""
