"""How heads are fitted: objectives, solvers, rows taken block by block, Keras networks."""
