"""HDF5 files of other layouts: the plain one that other programs read, and those that other programs write."""
