"""The layouts of a user's own folder, each read into the same records: image_folder.py chooses among them."""
