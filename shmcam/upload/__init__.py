"""The optional process that copies saved files to where people keep things, with rclone."""
