"""The model folder, the network that it describes, and the forms that it is written in."""
