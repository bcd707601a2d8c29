"""Files to RGB arrays: discovery, decoding, resizing."""
