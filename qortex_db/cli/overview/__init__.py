"""The commands that tell how it all stands."""
