"""The frozen network and where its weights come from."""
