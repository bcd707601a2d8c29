"""The HDF5 feature cache: the only room that imports h5py."""
