"""What has been saved: catalogue, retention, archive."""
