"""The ground: how a process starts, speaks, computes and ends."""
