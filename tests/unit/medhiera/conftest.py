"""Its being here puts this folder on the path: the rooms below share tiny_training.py."""
