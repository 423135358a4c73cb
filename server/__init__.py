"""The Flower server: round loop, algorithms, aggregation, convergence, drift, records."""
