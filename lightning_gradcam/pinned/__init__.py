"""What a test pins: where its files are, and what is checked. Loads nothing by itself."""
