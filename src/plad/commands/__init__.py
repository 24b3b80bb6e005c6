"""What stands behind the commands that check, show and hand over."""
