"""The HDF5 feature cache; the only package that imports h5py."""
