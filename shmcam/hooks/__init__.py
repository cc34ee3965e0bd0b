"""hooks: carries events to commands, webhooks and push services; an optional program."""
