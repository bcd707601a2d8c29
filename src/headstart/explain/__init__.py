"""Where in an image the decision of a head comes from."""
