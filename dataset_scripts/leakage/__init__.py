"""Which training images show a held-out image under another name."""
