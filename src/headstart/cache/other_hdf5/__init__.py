"""HDF5 files of other layouts: the portable export, and files of other programs."""
