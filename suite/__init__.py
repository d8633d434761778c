"""What the commands share, in rooms, each of which imports only from those below it.

training, serving, evaluation, model, records, pictures, files, process; docs/CONTRIBUTING.md has the map.
"""
