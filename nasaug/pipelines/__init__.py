"""What the commands do, composed from the rooms."""
