"""Images without labels → clusters of images that the network finds similar → class folders."""
