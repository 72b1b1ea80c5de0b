"""Stream tiles through the network. The only room with threads."""
