"""The process that saves, stacks and archives pictures."""
