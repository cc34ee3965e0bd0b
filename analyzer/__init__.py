"""The process that scores every frame and decides when night begins and ends."""
