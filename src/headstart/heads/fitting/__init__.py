"""How heads are fitted: objectives and solvers, rows in few columns, Keras networks."""
