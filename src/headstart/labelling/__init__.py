"""From images without labels to class folders, and which images to label next."""
