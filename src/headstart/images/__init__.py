"""Image files to RGB arrays: discovery, decoding, resizing."""
