"""The paper's side of a comparison: Faro as published, its solvers, and a policy like Cilantro."""
